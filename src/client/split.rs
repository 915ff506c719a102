//! An INSERT of rows of several shards: each gets a statement with its own rows, all at once, and the rows of
//! RETURNING come back in the order in which they were given.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::merged::{Asked, Description, PARSING, Step, Stop, malformed, parse, receive};
use super::relay::{Flow, RelayError};
use super::request::{Ran, Request};
use super::session::{End, Held, Session};
use crate::backend::Backend;
use crate::base::{Role, ShardId};
use crate::merge::Format;
use crate::net::Buffer;
use crate::proto::{Expect, Origin, Part, Replies, Unexpected};
use crate::sql::{ColumnLists, Filled, InsertedRows, Moves};
use crate::wire;

/// Of rows that wait to be written.
const OUT_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Inserting<'a> {
    rows: InsertedRows,
    /// The shard of each row.
    owners: SmallVec<[ShardId; 4]>,
    /// With the columns named that the client leaves to the catalog.
    asked: Asked<'a>,
    moves: Option<Arc<Moves>>,
}

impl<'a> Inserting<'a> {
    pub fn new(
        rows: InsertedRows,
        owners: SmallVec<[ShardId; 4]>,
        mut asked: Asked<'a>,
        lists: Option<&Arc<ColumnLists>>,
    ) -> Inserting<'a> {
        let Some(lists) = lists else { return Inserting { rows, owners, asked, moves: None } };
        let named = lists.name(&asked.text);
        asked.text = named.text.into();
        Inserting { rows: rows.behind(lists.tokens()), owners, asked, moves: Some(Arc::new(named.moves)) }
    }
}

impl Session {
    pub async fn run_split(&mut self, request: &Request<'_>, inserting: &Inserting<'_>) -> Result<Ran, End> {
        let mut team = match self.assemble(&request.decision.shards, Role::Primary).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Ran::Refused(refusal)),
        };
        self.hold_each(&team, false).await;
        let _live: Vec<_> = team.iter().map(|it| self.live(it.shard, it.role, request.access)).collect();
        if self.overdue.is_none() {
            self.overdue = self.overdue();
        }
        let mut flow = Flow::sent_now();
        let ended = self.insert_parts(&mut team, inserting, &mut flow).await;
        let now = Instant::now();
        for (index, held) in team.iter().enumerate() {
            self.count(request, held.shard, held.role, &flow.share(index, team.len()), now);
        }
        match ended {
            Ok(Inserted { failed, end }) => self.end_on_each(team, &failed, &end).await,
            Err(Stop::Lost(error)) => self.lose_team(team, error).await,
            // Of the description: no shard has begun anything.
            Err(Stop::Told) => {
                self.dismiss(team).await;
                Ok(Ran::Unready { failed: true })
            }
            Err(Stop::Refused(refusal)) => {
                self.mark_written(&team);
                drop(team);
                let _closed = self.cancel.slot().detach().await;
                Ok(Ran::Refused(refusal))
            }
        }
    }

    /// One shard looks at the statement as the client wrote it: an error of its text has the place that it has
    /// there, and a parameter the type that it has there, whichever rows it stands in.
    async fn insert_parts(
        &mut self,
        team: &mut [Held],
        inserting: &Inserting<'_>,
        flow: &mut Flow,
    ) -> Result<Inserted, Stop> {
        let asked = &inserting.asked;
        let first = team.first_mut().ok_or(RelayError::ServerClosed)?;
        if let Some(moves) = &inserting.moves {
            first.lease.pipeline.move_errors(PARSING, moves);
        }
        let described = self.describe(first, asked, None, flow).await?;
        let spans = inserting.rows.spans(&asked.text).ok_or_else(malformed)?;
        let begin = self.begin_on_each();
        for held in team.iter_mut() {
            let owned = inserting.owners.iter().enumerate().filter(|it| *it.1 == held.shard);
            let part = spans.statement(&asked.text, owned.map(|it| it.0)).ok_or_else(malformed)?;
            send(&mut held.lease, &begin, asked, &part, &described.parameters).await?;
        }
        let shards: Vec<ShardId> = team.iter().map(|it| it.shard).collect();
        let place = |it: &ShardId| shards.iter().position(|shard| shard == it);
        let order = inserting.owners.iter().filter_map(place).collect();
        let mut gathering = Gathering::new(order, team.len());
        let rest = self.answer_steps(&mut gathering, team, asked, &described, flow).await?;
        while !gathering.is_over() {
            self.gather(&mut gathering, team, flow).await?;
        }
        self.put(&gathering.out, flow).await?;
        let mut end = Vec::new();
        wire::command_complete(&mut end, &gathering.replies.summed_tag());
        for step in rest {
            if matches!(step, Step::Closed) {
                end.extend_from_slice(wire::CLOSE_COMPLETE);
            }
        }
        Ok(Inserted { failed: gathering.failed.iter().map(|it| shards[*it]).collect(), end })
    }

    /// What the client awaits in front of the rows; gives what it awaits behind them.
    async fn answer_steps<'s>(
        &mut self,
        gathering: &mut Gathering,
        team: &mut [Held],
        asked: &'s Asked<'_>,
        described: &Description,
        flow: &mut Flow,
    ) -> Result<&'s [Step], Stop> {
        let mut statement = Vec::new();
        wire::parameter_description(&mut statement, &described.parameters);
        let row = if described.row.is_empty() { wire::NO_DATA } else { &described.row[..] };
        statement.extend_from_slice(row);
        let mut script = asked.script.as_slice();
        while let [step @ (Step::Parsed | Step::Statement), rest @ ..] = script {
            script = rest;
            if matches!(step, Step::Statement) {
                gathering.out.extend_from_slice(&statement);
            } else {
                self.put_done(*step, &mut gathering.out);
            }
        }
        self.put(&std::mem::take(&mut gathering.out), flow).await?;
        while !gathering.is_described() {
            self.gather(gathering, team, flow).await?;
        }
        while let [step, rest @ ..] = script {
            if matches!(step, Step::Rows(_)) || !gathering.failed.is_empty() {
                break;
            }
            script = rest;
            match step {
                Step::Bound | Step::Closed => self.put_done(*step, &mut gathering.out),
                Step::Portal => gathering.put_description(asked.is_query),
                Step::Statement => gathering.out.extend_from_slice(&statement),
                Step::Parsed | Step::Rows(_) => {}
            }
        }
        gathering.is_open = true;
        gathering.emit()?;
        Ok(script)
    }

    /// One read of a shard whose rows come next.
    async fn gather(
        &mut self,
        gathering: &mut Gathering,
        team: &mut [Held],
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let wanted = gathering.wanted();
        let mut servers: SmallVec<[&mut Backend; 8]> = team.iter_mut().map(|it| &mut *it.lease).collect();
        let index = self.wait_for(&mut servers, &wanted).await?;
        drop(servers);
        let server = &mut *team[index].lease;
        let mut buffer = std::mem::take(&mut gathering.buffers[index]);
        if server.stream.read(&mut buffer).await.map_err(RelayError::Server)? == 0 {
            return Err(RelayError::ServerClosed.into());
        }
        let consumed = receive(server, &buffer, &mut gathering.replies)?;
        let is_over = server.pipeline.is_drained();
        let pieces = gathering.take(index, buffer.filled(), is_over)?;
        flow.note_error(buffer.filled(), &gathering.replies);
        buffer.consume(consumed);
        gathering.buffers[index] = buffer;
        if !pieces.is_empty() {
            self.put(&pieces, flow).await?;
        }
        gathering.emit()?;
        if gathering.out.len() >= OUT_BYTES_MAX {
            self.put(&std::mem::take(&mut gathering.out), flow).await?;
        }
        Ok(())
    }
}

/// How the parts of an INSERT have ended.
struct Inserted {
    failed: Vec<ShardId>,
    /// For the client, once all have committed.
    end: Vec<u8>,
}

/// The answers of all shards on their way to one. Rows are read of the shard whose row comes next, so that of each
/// no more waits here than one read brings.
struct Gathering {
    /// Of the inserted rows, which shard has each. One whose row a trigger or ON CONFLICT leaves out gives the next
    /// of that shard.
    order: Vec<usize>,
    next: usize,
    replies: Replies,
    buffers: Vec<Buffer>,
    /// Rows of each shard that are not written yet, and where the first of them begins.
    rows: Vec<(Vec<u8>, usize)>,
    descriptions: Vec<Option<Vec<u8>>>,
    over: Vec<bool>,
    failed: Vec<usize>,
    out: Vec<u8>,
    /// What stands in front of the rows is written.
    is_open: bool,
}

impl Gathering {
    fn new(order: Vec<usize>, shards: usize) -> Gathering {
        Gathering {
            order,
            next: 0,
            replies: Replies::default(),
            buffers: (0..shards).map(|_| Buffer::default()).collect(),
            rows: vec![(Vec::new(), 0); shards],
            descriptions: vec![None; shards],
            over: vec![false; shards],
            failed: Vec::new(),
            out: Vec::new(),
            is_open: false,
        }
    }

    fn is_described(&self) -> bool {
        self.descriptions.iter().zip(&self.over).all(|(it, over)| it.is_some() || *over)
    }

    fn is_over(&self) -> bool {
        self.over.iter().all(|it| *it)
    }

    /// Which shards to read from.
    fn wanted(&self) -> SmallVec<[bool; 8]> {
        let all = self.over.iter().map(|it| !it);
        if !self.is_described() {
            let missing = self.descriptions.iter().zip(all);
            return missing.map(|(it, left)| left && it.is_none()).collect();
        }
        match self.order.get(self.next) {
            Some(next) if self.failed.is_empty() && !self.over[*next] => {
                (0..self.over.len()).map(|it| it == *next).collect()
            }
            _ => all.collect(),
        }
    }

    /// Takes what a shard has sent; gives what is to be written at once: errors and notices.
    fn take(&mut self, index: usize, input: &[u8], is_over: bool) -> Result<Vec<u8>, Stop> {
        for range in std::mem::take(&mut self.replies.descriptions) {
            self.descriptions[index].get_or_insert_with(|| input[range].to_vec());
        }
        if !same_columns(&self.descriptions)? {
            return Err(RelayError::Unexpected(Unexpected::Columns).into());
        }
        for range in &self.replies.collected {
            self.rows[index].0.extend_from_slice(&input[range.clone()]);
        }
        self.over[index] |= is_over;
        let has_failed = self.replies.failed && self.replies.error.is_some();
        if has_failed && !self.failed.contains(&index) {
            self.failed.push(index);
        }
        Ok(self.replies.pieces.iter().flat_map(|it| it.bytes(input).to_vec()).collect())
    }

    /// Moves the rows whose turn it is.
    fn emit(&mut self) -> Result<(), Stop> {
        if !self.failed.is_empty() {
            self.rows.iter_mut().for_each(|it| *it = (Vec::new(), 0));
            return Ok(());
        }
        while self.is_open && self.next < self.order.len() {
            let index = self.order[self.next];
            let (bytes, at) = &mut self.rows[index];
            match wire::header(&bytes[*at..]).map_err(|_| malformed())? {
                Some(head) => {
                    self.out.extend_from_slice(&bytes[*at..*at + head.total]);
                    *at += head.total;
                }
                None if self.over[index] => {}
                None => break,
            }
            if *at == bytes.len() {
                bytes.clear();
                *at = 0;
            }
            self.next += 1;
        }
        if self.next == self.order.len() {
            // A rule may make more rows of one.
            for (bytes, at) in &mut self.rows {
                self.out.extend_from_slice(&bytes[*at..]);
                (*bytes, *at) = (Vec::new(), 0);
            }
        }
        Ok(())
    }

    fn put_description(&mut self, is_query: bool) {
        let told = self.descriptions.iter().flatten().next();
        match told.filter(|it| it.as_slice() != wire::NO_DATA) {
            Some(it) => self.out.extend_from_slice(it),
            None if is_query => {}
            None => self.out.extend_from_slice(wire::NO_DATA),
        }
    }
}

/// Name, type and format of each column are the same on all shards that have told them.
fn same_columns(descriptions: &[Option<Vec<u8>>]) -> Result<bool, Stop> {
    let mut told = descriptions.iter().flatten();
    let Some(first) = told.next() else { return Ok(true) };
    for other in told {
        let are_rows = |it: &[u8]| it != wire::NO_DATA;
        if are_rows(first) != are_rows(other) {
            return Ok(false);
        }
        if are_rows(first) {
            let shapes = |it| wire::column_shapes(it).map_err(|_| malformed());
            let (a, b) = (shapes(first)?, shapes(other)?);
            if !a.into_iter().eq(b) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A shard's part of the statement, with the parameters that stand in it, behind its BEGIN.
async fn send(
    server: &mut Backend,
    begin: &str,
    asked: &Asked<'_>,
    part: &Filled,
    oids: &[u32],
) -> Result<(), RelayError> {
    let of = |it: &u16| usize::from(*it).saturating_sub(1);
    let oids = part.params.iter().flat_map(|it| oids.get(of(it)).copied().unwrap_or(0).to_be_bytes());
    let values: Vec<_> =
        part.params.iter().map(|it| asked.values.get(of(it)).copied().unwrap_or((0, None))).collect();
    let results: Vec<i16> = asked.results.0.iter().map(|it| i16::from(*it == Format::Binary)).collect();
    let mut out = Vec::new();
    server.pipeline.set_part(Part::COLLECTED);
    wire::query(&mut out, begin);
    server.pipeline.push(Expect::Query(Origin::Keyway));
    parse(server, &mut out, &part.text, &oids.collect::<Vec<_>>());
    wire::run_unnamed(&mut out, &values, &results, 0);
    out.extend_from_slice(wire::SYNC);
    for expect in [Expect::Bind, Expect::Describe, Expect::Execute, Expect::Sync] {
        server.pipeline.push(expect);
    }
    server.stream.write_all(&out).await.map_err(RelayError::Server)
}

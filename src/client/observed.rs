//! What requests cost, told to those who watch: statements by fingerprint, the log of slow ones, traces. Where nobody does,
//! a request pays for a few additions and two comparisons; the text is looked at again only for those that are told.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::group::Group;
use super::relay::Flow;
use super::request::{Payload, Ran, Request};
use super::session::{End, Session};
use super::slow::{SlowLog, SlowStatement};
use crate::base::{Access, Refusal, Role, ShardId};
use crate::config::Ratio;
use crate::hotspot::{Sample, TEXT_BYTES_MAX};
use crate::otlp::{Exporter, Ids, Span};
use crate::sql::{self, Traceparent};
use crate::wire::{self, Bind, FrontendTag};

/// Who is told. A reload makes another one.
#[derive(Default)]
pub struct Watchers {
    pub slow: Option<SlowLog>,
    pub traces: Option<Traces>,
}

/// Where spans go, and of which statements.
pub struct Traces {
    pub exporter: Arc<Exporter>,
    /// Of statements that bring no `traceparent`.
    pub ratio: Ratio,
    pub ids: Arc<Ids>,
}

/// A statement that is traced, and below which span.
struct Traced {
    parent: Option<Traceparent>,
}

impl Traces {
    /// As the statement's comment says, else by chance.
    fn choose(&self, text: &str, dice: u32) -> Option<Traced> {
        let parent = sql::traceparent(text);
        // The highest bits count here; the lowest choose for the table of fingerprints.
        let by_chance = || self.ratio.takes(dice);
        parent.map_or_else(by_chance, |it| it.sampled).then_some(Traced { parent })
    }

    /// Of the trace and of a new span.
    fn ids_for(&self, traced: &Traced) -> (u128, u64) {
        (traced.parent.map_or_else(|| self.ids.trace(), |it| it.trace_id), self.ids.span())
    }
}

/// Who is told of a request, whatever its text is; spans depend on that.
#[derive(Clone, Copy)]
struct Audience {
    /// How many statements it stands for in the table of fingerprints.
    weight: Option<u32>,
    is_slow: bool,
}

/// Of the request under way, so far.
#[derive(Debug, Default)]
pub(super) struct Cost {
    wait_us: u64,
    spent: Spent,
    rows: u64,
    bytes: u64,
    role: Option<Role>,
    /// Of an error, by a server or Keyway.
    state: Option<[u8; 5]>,
    /// It has been told: what is refused behind it is the same request.
    is_told: bool,
    /// When it came.
    began: Option<Instant>,
    /// Random enough to choose by, and never 0.
    dice: u32,
    copying: Option<Box<Told<'static>>>,
    /// When the answer of the one server had come to its end, for `settle`, which follows.
    pub ended: Option<Instant>,
    /// When it has waited long enough for a primary, if it had to.
    pub hold_ends: Option<Instant>,
}

/// Micro seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    /// Since the request was there.
    pub took_us: u64,
    /// Since it was sent to the server, as far as that is known.
    pub server_us: u64,
}

/// What is said of a request beside its cost. `text` is as the client wrote it and goes nowhere.
#[derive(Debug)]
struct Told<'a> {
    text: Cow<'a, str>,
    statements: usize,
    access: Access,
    shards: Cow<'a, [ShardId]>,
    table: Option<Cow<'a, str>>,
    began: Instant,
}

impl Cost {
    pub fn new(entropy: u64) -> Cost {
        Cost { dice: seed(entropy), ..Cost::default() }
    }

    /// It goes on where the session rests.
    pub fn is_of_copy(&self) -> bool {
        self.copying.is_some()
    }

    fn begin(&mut self, now: Option<Instant>) {
        let (dice, began, copying) = (next(self.dice), now.or(self.began), self.copying.take());
        *self = Cost { dice, began, copying, ..Cost::default() };
    }

    /// Of one shard.
    pub fn add(&mut self, spent: Spent, role: Role, flow: &Flow) {
        self.spent.took_us = self.spent.took_us.max(spent.took_us);
        self.spent.server_us = self.spent.server_us.max(spent.server_us);
        self.rows += flow.rows;
        self.bytes += flow.sent_bytes;
        self.role = Some(role);
        self.state = self.state.or(flow.state);
    }

    pub fn waited(&mut self, time: Duration) {
        self.wait_us += time.as_micros() as u64;
    }

    pub fn refused(&mut self, refusal: &Refusal) {
        self.state = refusal.state().0.as_bytes().try_into().ok();
    }
}

/// Not 0, and another one each time.
fn seed(entropy: u64) -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64 ^ entropy).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) as u32 | 1
}

/// xorshift.
fn next(dice: u32) -> u32 {
    let mut it = dice;
    it ^= it << 13;
    it ^= it >> 17;
    it ^ (it << 5)
}

impl Session {
    pub fn cost(&mut self) -> &mut Cost {
        &mut self.at_work().cost
    }

    /// Before anything is done for a request, that came at `now`, and before it goes to servers.
    pub fn begin_cost(&mut self, now: Option<Instant>) {
        let goes_on = now.is_none() || self.unsynced;
        let cost = self.cost();
        cost.begin(now);
        if !goes_on {
            // Of one whose server was lost.
            cost.copying = None;
        }
    }

    /// Behind all that was done for it at servers.
    pub fn tell_request(&mut self, request: &Request<'_>, ran: &Result<Ran, End>) {
        if let Ok(Ran::CopyIn) = ran {
            let told = told(request).map(|it| Box::new(it.into_owned()));
            let cost = self.cost();
            (cost.copying, cost.is_told) = (told, true);
            return;
        }
        let cost = self.cost();
        cost.is_told = true;
        if cost.copying.is_some() {
            return self.tell_copied();
        }
        if let Ok(Ran::Refused(refusal)) = ran {
            cost.refused(refusal);
            cost.spent.took_us = request.started.elapsed().as_micros() as u64;
        }
        if let Some(audience) = self.audience()
            && let Some(told) = told(request)
        {
            self.tell(&told, audience);
        }
    }

    /// A COPY FROM STDIN is a request from its statement to the end of its answer.
    pub fn tell_copied(&mut self) {
        let Some(told) = self.cost().copying.take() else { return };
        if let Some(audience) = self.audience() {
            self.tell(&told, audience);
        }
    }

    /// What was refused before it got to a server, if it was. `unit` is all that the client has sent for it.
    pub fn tell_refused(&mut self, unit: &[u8]) {
        let cost = self.cost();
        let (Some(_), Some(began), false) = (cost.state, cost.began, cost.is_told) else { return };
        cost.is_told = true;
        cost.spent.took_us = began.elapsed().as_micros() as u64;
        if let Some(audience) = self.audience()
            && let Some(text) = self.text_of_unit(unit)
        {
            let (text, shards, access) = (text.into(), Cow::default(), Access::Read);
            self.tell(&Told { text, statements: 1, access, shards, table: None, began }, audience);
        }
    }

    /// `None` where nobody is told, whatever the text is. Once for each request: what is random in it falls once.
    fn audience(&self) -> Option<Audience> {
        let cost = &self.at_work.as_ref()?.cost;
        let Watchers { slow, traces } = &self.shared.watchers;
        let audience = Audience {
            weight: self.database.costly.as_ref().and_then(|it| it.weight(cost.spent.took_us, cost.dice)),
            is_slow: slow.as_ref().is_some_and(|it| cost.spent.took_us >= it.threshold_us),
        };
        (audience.weight.is_some() || audience.is_slow || traces.is_some()).then_some(audience)
    }

    /// In the text of a Query, of a Parse, or of the statement that a Bind names.
    fn text_of_unit(&self, unit: &[u8]) -> Option<String> {
        let mut rest = unit;
        while let Ok(Some(head)) = wire::header(rest) {
            let (message, after) = rest.split_at_checked(head.total)?;
            rest = after;
            let text = match FrontendTag(head.tag) {
                FrontendTag::QUERY => wire::query_text(message).ok(),
                FrontendTag::PARSE => wire::parse(message).ok().map(|it| it.text),
                FrontendTag::BIND => {
                    let name = Bind::read(message).ok()?.statement();
                    self.names.get(name).map(|it| it.text.as_bytes())
                }
                _ => None,
            };
            if let Some(text) = text {
                return std::str::from_utf8(text).ok().map(str::to_owned);
            }
        }
        None
    }

    #[cold]
    fn tell(&self, told: &Told<'_>, audience: Audience) {
        let Some(cost) = self.at_work.as_ref().map(|it| &it.cost) else { return };
        let traces = self.shared.watchers.traces.as_ref();
        let traced = traces.and_then(|it| it.choose(&told.text, cost.dice));
        if audience.weight.is_none() && !audience.is_slow && traced.is_none() {
            return;
        }
        let scan = sql::scan(&told.text);
        let fingerprint = scan.well_formed.then_some(scan.fingerprint);
        let normalised = || sql::normalised(&told.text, TEXT_BYTES_MAX).map(Arc::<str>::from);
        if let (Some(weight), Some(costly)) = (audience.weight, &self.database.costly) {
            let sample = self.sample(told, cost, fingerprint, weight);
            costly.record(&sample, || normalised().unwrap_or_else(|| UNREADABLE.into()), unix_s());
        }
        if !audience.is_slow && traced.is_none() {
            return;
        }
        let text = normalised();
        let state = cost.state.map(|it| String::from_utf8_lossy(&it).into_owned());
        if let Some(slow) = self.shared.watchers.slow.as_ref().filter(|_| audience.is_slow) {
            slow.tell(&SlowStatement {
                database: &self.database.name,
                user: &self.record.user,
                shards: &self.names(&told.shards),
                role: cost.role.map(Role::label),
                fingerprint,
                text: text.as_deref(),
                statements: told.statements,
                took: Duration::from_micros(cost.spent.took_us),
                wait: Duration::from_micros(cost.wait_us),
                server: Duration::from_micros(cost.spent.server_us),
                rows: cost.rows,
                bytes: cost.bytes,
                state: state.as_deref(),
            });
        }
        if let (Some(traces), Some(traced)) = (traces, traced) {
            let (trace_id, span_id) = traces.ids_for(&traced);
            let span = Span { trace_id, span_id, ..self.span(told, cost, fingerprint, text, state) };
            traces.exporter.offer(Span { parent_id: traced.parent.map(|it| it.parent_id), ..span });
        }
    }

    fn sample(&self, told: &Told<'_>, cost: &Cost, fingerprint: Option<u128>, weight: u32) -> Sample<'_> {
        Sample {
            fingerprint: fingerprint.unwrap_or(0),
            weight,
            failed: cost.state.is_some(),
            rows: cost.rows,
            time_us: cost.spent.took_us,
            shard: match &told.shards[..] {
                [] => "none",
                [only] => self.database.router.shard_name(*only),
                _ => "several",
            },
        }
    }

    /// Without its ids.
    fn span(
        &self,
        told: &Told<'_>,
        cost: &Cost,
        fingerprint: Option<u128>,
        text: Option<Arc<str>>,
        error: Option<String>,
    ) -> Span {
        let ended = SystemTime::now();
        Span {
            trace_id: 0,
            span_id: 0,
            parent_id: None,
            name: name_of(text.as_deref(), told.table.as_deref()),
            began: ended.checked_sub(told.began.elapsed()).unwrap_or(ended),
            ended,
            database: self.record.database.clone(),
            user: self.record.user.clone(),
            shards: self.names(&told.shards),
            role: cost.role.map(Role::label),
            access: told.access.label(),
            fingerprint,
            text,
            statements: told.statements,
            wait_us: cost.wait_us,
            server_us: cost.spent.server_us,
            rows: cost.rows,
            bytes: cost.bytes,
            error,
        }
    }
}

impl Told<'_> {
    fn into_owned(self) -> Told<'static> {
        Told {
            text: self.text.into_owned().into(),
            shards: self.shards.into_owned().into(),
            table: self.table.map(|it| it.into_owned().into()),
            statements: self.statements,
            access: self.access,
            began: self.began,
        }
    }
}

fn told<'a>(request: &'a Request<'_>) -> Option<Told<'a>> {
    let (text, statements) = text_of(&request.payload)?;
    let (access, began) = (request.access, request.started);
    let shards = Cow::Borrowed(&request.decision.shards[..]);
    let table = request.subject.table.as_deref().map(Cow::Borrowed);
    Some(Told { text, statements, access, shards, table, began })
}

/// In place of a text whose literals cannot be told.
const UNREADABLE: &str = "(a text that PostgreSQL's scanner refuses)";

/// Seconds of Unix time.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The first statement, and how many there are; `None` of what has no text, and of what only prepares.
fn text_of<'a>(payload: &Payload<'a>) -> Option<(Cow<'a, str>, usize)> {
    let of_query = |message: &'a [u8]| {
        let is_query = message.first().is_some_and(|it| FrontendTag(*it) == FrontendTag::QUERY);
        let text = wire::query_text(message).ok().filter(|_| is_query)?;
        Some((String::from_utf8_lossy(text), 1))
    };
    match payload {
        Payload::Query(message) => of_query(message),
        Payload::Renamed(renamed) => {
            let prepared = renamed.prepares.as_ref().map(|it| &it.1);
            let executed = renamed.executed.as_ref().map(|it| &it.statement).or(renamed.needs.first());
            Some((Cow::Borrowed(executed.or(prepared)?.text()), 1))
        }
        Payload::Named(named) => of_query(named.message()),
        Payload::Group(group) => of_group(group),
    }
}

fn of_group<'a>(group: &'a Group<'_>) -> Option<(Cow<'a, str>, usize)> {
    let statements = group.bound().count();
    let first = group.bound().next()?;
    Some((Cow::Borrowed(first.statement.text()), statements))
}

/// `SELECT orders`: of few values, as the names of spans are to be.
fn name_of(text: Option<&str>, table: Option<&str>) -> String {
    let word = text.and_then(|it| it.split(|it: char| !it.is_ascii_alphabetic()).find(|it| !it.is_empty()));
    let word = word.filter(|it| it.len() <= 16).map_or_else(|| "statement".to_owned(), str::to_uppercase);
    match table {
        Some(table) => format!("{word} {table}"),
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hotspot::Statements;

    #[test]
    fn names_of_spans_have_few_values() {
        assert_eq!(name_of(Some("select * from t where a = ?"), Some("t")), "SELECT t");
        assert_eq!(name_of(Some("(SELECT ?)"), None), "SELECT");
        assert_eq!(name_of(Some(""), None), "statement");
        assert_eq!(name_of(None, None), "statement");
    }

    #[test]
    fn dice_fall_evenly() {
        let (mut dice, mut chosen) = (7, 0);
        let statements = Statements::default();
        for _ in 0..64_000 {
            dice = next(dice);
            chosen += u32::from(statements.weight(0, dice).is_some());
        }
        assert!((800..1_200).contains(&chosen), "{chosen}");
    }

    #[test]
    fn parts_add_up_and_merged_ones_do_not() {
        let (mut cost, flow) =
            (Cost { dice: 7, ..Cost::default() }, Flow { rows: 3, sent_bytes: 10, ..Flow::default() });
        let spent = |took_us| Spent { took_us, server_us: took_us / 2 };
        cost.add(spent(10), Role::Primary, &flow);
        cost.add(spent(30), Role::Primary, &Flow { state: Some(*b"40001"), ..flow });
        assert_eq!((cost.rows, cost.bytes, cost.spent.took_us, cost.spent.server_us), (6, 20, 30, 15));
        assert_eq!(cost.state, Some(*b"40001"));
        cost.begin(None);
        let flow = Flow { rows: 3, sent_bytes: 10, ..Flow::default() };
        (0..4).for_each(|it| cost.add(spent(10), Role::Replica, &flow.share(it, 4)));
        assert_eq!((cost.rows, cost.bytes, cost.state), (3, 10, None));
    }
}

//! `SHOW keyway.position` and `SET keyway.position`: what a session must see, carried to another connection, or to another
//! Keyway in front of the same servers. Servers know no such setting.
//!
//! For each shard of which the session has written or seen something, the token says how far its primary was behind that:
//! `s1=1:0/3000148,s2=1:0/40006F8`, a timeline and a position. Who sets it reads from no replica before that.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::effects::Answer;
use super::hints::value_of;
use super::session::Session;
use crate::base::{Lsn, Position, Reason, Refusal, ShardId, SqlState};
use crate::route::{Assigned, Kind, SetStatement};
use crate::wire::{self, Column, ColumnType, TxStatus, Value};

pub(super) const NAME: &str = "keyway.position";
pub(super) const COLUMNS: &[Column] = &[Column { name: NAME, of: ColumnType::Text }];

/// Between looks whether the primary's next sample is there.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// `SHOW keyway.position`.
pub(super) fn is_shown(kind: &Kind) -> bool {
    matches!(kind, Kind::Show(name) if name == NAME)
}

fn is_set(kind: &Kind) -> bool {
    match kind {
        Kind::Set(SetStatement::Assign { name, .. } | SetStatement::Reset { name }) => name == NAME,
        _ => false,
    }
}

impl Session {
    /// As `answer`, of what may have to wait.
    pub async fn answer_in_time(&mut self, kind: &Kind, text: &str) -> Answer {
        let failed = self.transaction.is_refused() || self.transaction.status() == TxStatus::Failed;
        if failed || !is_shown(kind) {
            return self.answer(kind, text);
        }
        match Box::pin(self.position()).await {
            Ok(token) => {
                let mut row = Vec::new();
                wire::put_row(&mut row, &[Value::Text(token)], |_| false);
                Answer::Made { notices: row, tag: "SHOW", columns: COLUMNS }
            }
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// `None` of other statements. What a token asks for can only rise: to set it anew, or to reset it, gives up nothing.
    pub fn answer_position(&mut self, kind: &Kind, text: &str) -> Option<Answer> {
        let of_several = |it: &Kind| is_set(it) || is_shown(it);
        match kind {
            Kind::Several { parts, .. } if parts.iter().any(of_several) => {
                let message = "keyway.position cannot be set or shown by a text of several statements";
                let hint = "send each statement by itself";
                Some(Answer::Refused(Refusal::unsupported(Reason::SessionState, message, hint)))
            }
            // The server tells that the transaction is aborted.
            _ if !is_set(kind) || self.transaction.status() == TxStatus::Failed => None,
            Kind::Set(SetStatement::Assign { value, .. }) if !matches!(value, Assigned::Default) => {
                let set = self.set_position(&value_of(text).unwrap_or_default());
                Some(set.map_or_else(Answer::Refused, |()| Answer::made("SET")))
            }
            Kind::Set(SetStatement::Reset { .. }) => Some(Answer::made("RESET")),
            _ => Some(Answer::made("SET")),
        }
    }

    /// # Errors
    /// 22023 for what is no token of this database, 57P03 for one of a timeline that is not known here.
    pub fn set_position(&mut self, token: &str) -> Result<(), Refusal> {
        let now = Instant::now();
        for (name, position) in parse(token).ok_or_else(|| no_token(token))? {
            let router = &self.database.router;
            let mut shards = (0..router.shard_count() as u16).map(ShardId);
            let Some(shard) = shards.find(|it| router.shard_name(*it) == name) else {
                return Err(no_token(token)
                    .detail(format!("database \"{}\" has no shard \"{name}\"", self.database.name)));
            };
            let Some(from) = self.database.topology.moment_of(shard, position) else {
                self.database.topology.look_at(shard);
                return Err(not_known(name, position));
            };
            // It was written before it came here, so that now is late enough whatever it says.
            self.demand(shard, from.map_or(now, |it| it.min(now)));
        }
        Ok(())
    }

    async fn position(&mut self) -> Result<String, Refusal> {
        let mut token = String::new();
        let deadline = Instant::now() + self.database.wait_timeout;
        for shard in (0..self.database.topology.shard_count() as u16).map(ShardId) {
            let Some(floor) = self.whole_floor(shard) else { continue };
            let position = self.position_behind(shard, floor, deadline).await?;
            let separator = if token.is_empty() { "" } else { "," };
            let name = escaped(self.database.router.shard_name(shard));
            let _ = write!(token, "{separator}{name}={}:{}", position.timeline, position.lsn);
        }
        Ok(token)
    }

    /// Where the primary was at some time after `floor`, and no later than there is a sample of.
    async fn position_behind(
        &mut self,
        shard: ShardId,
        floor: Instant,
        deadline: Instant,
    ) -> Result<Position, Refusal> {
        loop {
            if let Some(it) = self.database.topology.position_behind(shard, floor) {
                return Ok(it);
            }
            if Instant::now() >= deadline {
                let name = self.database.router.shard_name(shard);
                let message = format!("position of shard \"{name}\" is not known");
                return Err(Refusal::new(Reason::NoServer, SqlState::CANNOT_CONNECT_NOW, message)
                    .hint("see SHOW REPLICAS for what keeps its primary from being probed"));
            }
            self.database.topology.look_at(shard);
            self.unless_gone(tokio::time::sleep(LOOK_PAUSE)).await?;
        }
    }
}

/// A primary has been promoted that this Keyway does not know: nobody here has what it wrote.
fn not_known(shard: String, position: Position) -> Refusal {
    let message = format!("timeline {} of shard \"{shard}\" is not known", position.timeline);
    Refusal::new(Reason::NoServer, SqlState::CANNOT_CONNECT_NOW, message)
        .hint("try again later: its primary may have been promoted just now")
}

fn no_token(token: &str) -> Refusal {
    let message = format!("invalid value for parameter \"{NAME}\": \"{token}\"");
    Refusal::new(Reason::Hint, SqlState::INVALID_PARAMETER_VALUE, message)
        .hint("set it to what SHOW keyway.position has said, on the same database")
}

/// `None` of what is no token. The empty one asks for nothing.
fn parse(token: &str) -> Option<Vec<(String, Position)>> {
    let one = |it: &str| {
        let (name, position) = it.split_once('=')?;
        let (timeline, lsn) = position.split_once(':')?;
        let (timeline, lsn): (u32, Lsn) = (timeline.parse().ok()?, lsn.parse().ok()?);
        Some((plain(name)?, Position { timeline, lsn }))
    };
    if token.trim().is_empty() { Some(Vec::new()) } else { token.trim().split(',').map(one).collect() }
}

/// A shard may have any name.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || "-_.".contains(char::from(byte)) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn plain(name: &str) -> Option<String> {
    let (mut bytes, mut out) = (name.bytes(), Vec::new());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |it: Option<u8>| char::from(it?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((high << 4 | low) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let at = |timeline, lsn| Position { timeline, lsn: Lsn(lsn) };
        for (text, expect) in [
            ("", Some(vec![])),
            (" ", Some(vec![])),
            ("s1=1:0/3000148", Some(vec![("s1".to_owned(), at(1, 0x300_0148))])),
            (
                "s1=1:0/3000148,a%2Cb=12:AB/1",
                Some(vec![("s1".to_owned(), at(1, 0x300_0148)), ("a,b".to_owned(), at(12, 0xAB_0000_0001))]),
            ),
            ("s1", None),
            ("s1=0/3000148", None),
            ("s1=1:3000148", None),
            ("s1=1:0/3000148,", None),
            ("a%2=1:0/1", None),
            ("a%FF=1:0/1", None),
        ] {
            assert_eq!(parse(text), expect, "{text}");
        }
        for name in ["main", "a,b=c:%", "größe", ""] {
            assert_eq!(plain(&escaped(name)).as_deref(), Some(name));
        }
    }
}

//! What a client has sent, cut into the units that are routed as one: a Query, or the extended
//! messages up to Sync or Flush.

use crate::base::{Reason, Refusal, SqlState};
use crate::wire::{self, FrontendTag};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One message, and one unit of extended messages.
    pub message_bytes_max: usize,
}

/// A whole unit at the start of the buffer and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Query(usize),
    Extended(usize, UnitEnd),
    FunctionCall(usize),
    /// A COPY message outside COPY, ignored: the client may not have seen the server's error yet
    /// (`PostgresMain` in postgres.c).
    Stray(usize),
    Terminate,
}

impl Unit {
    /// Bytes.
    pub fn length(self) -> usize {
        match self {
            Unit::Query(it) | Unit::Extended(it, _) | Unit::FunctionCall(it) | Unit::Stray(it) => it,
            Unit::Terminate => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitEnd {
    Sync,
    Flush,
    /// A Query or a function call follows without a Sync.
    Open,
}

/// A client that cannot be understood any more; its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    Length,
    UnknownType(u8),
    TooLong(usize),
}

impl Violation {
    /// PostgreSQL's own words (`SocketBackend` in postgres.c, `pq_getmessage` in pqcomm.c).
    pub fn refusal(self, limits: Limits) -> Refusal {
        let text = match self {
            Violation::Length => "invalid message length".to_owned(),
            Violation::UnknownType(tag) => format!("invalid frontend message type {tag}"),
            Violation::TooLong(bytes) => {
                return Refusal::new(Reason::Limit, SqlState::PROTOCOL_VIOLATION, "invalid message length")
                    .detail(format!(
                        "the message or unfinished group of messages has {bytes} bytes, the limit is {}",
                        limits.message_bytes_max
                    ))
                    .hint("raise limits.message_bytes_max in the configuration of keyway");
            }
        };
        Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, text)
    }
}

/// Remembers how far an unfinished unit was walked, so that a large one is not walked again for
/// every packet.
#[derive(Debug, Default)]
pub struct Intake {
    walked: usize,
}

impl Intake {
    /// The unit at the start of `bytes`; `None` when more bytes are needed.
    pub fn next(&mut self, bytes: &[u8], limits: Limits) -> Result<Option<Unit>, Violation> {
        loop {
            let Some(rest) = bytes.get(self.walked..) else { return Ok(None) };
            let Some(head) = wire::header(rest).map_err(|_| Violation::Length)? else { return Ok(None) };
            let tag = FrontendTag(head.tag);
            check(tag, head.total, self.walked, limits)?;
            if self.walked > 0 && is_alone(tag) {
                return Ok(Some(self.done(Unit::Extended(self.walked, UnitEnd::Open))));
            }
            if rest.len() < head.total {
                return Ok(None);
            }
            let end = self.walked + head.total;
            match tag {
                FrontendTag::QUERY => return Ok(Some(Unit::Query(end))),
                FrontendTag::FUNCTION_CALL => return Ok(Some(Unit::FunctionCall(end))),
                FrontendTag::TERMINATE => return Ok(Some(Unit::Terminate)),
                FrontendTag::COPY_DATA | FrontendTag::COPY_DONE | FrontendTag::COPY_FAIL => {
                    return Ok(Some(Unit::Stray(end)));
                }
                FrontendTag::SYNC => return Ok(Some(self.done(Unit::Extended(end, UnitEnd::Sync)))),
                FrontendTag::FLUSH => return Ok(Some(self.done(Unit::Extended(end, UnitEnd::Flush)))),
                _ => self.walked = end,
            }
        }
    }

    fn done(&mut self, unit: Unit) -> Unit {
        self.walked = 0;
        unit
    }
}

/// Messages that are no part of a group of extended ones.
fn is_alone(tag: FrontendTag) -> bool {
    matches!(
        tag,
        FrontendTag::QUERY
            | FrontendTag::FUNCTION_CALL
            | FrontendTag::TERMINATE
            | FrontendTag::COPY_DATA
            | FrontendTag::COPY_DONE
            | FrontendTag::COPY_FAIL
    )
}

fn check(tag: FrontendTag, total: usize, walked: usize, limits: Limits) -> Result<(), Violation> {
    if !tag.is_known() {
        Err(Violation::UnknownType(tag.0))
    } else if tag.is_too_long(total) {
        Err(Violation::Length)
    } else if walked + total > limits.message_bytes_max {
        Err(Violation::TooLong(walked + total))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { message_bytes_max: 100 };

    fn message(tag: u8, body: usize) -> Vec<u8> {
        let mut it = vec![tag];
        it.extend((body as u32 + 4).to_be_bytes());
        it.extend(vec![0; body]);
        it
    }

    #[test]
    fn extended_messages_are_one_unit_up_to_sync() {
        let bytes = [message(b'P', 9), message(b'B', 9), message(b'S', 0), message(b'Q', 3)].concat();
        let mut it = Intake::default();
        for end in 0..33 {
            assert_eq!(it.next(&bytes[..end], LIMITS), Ok(None), "{end}");
        }
        assert_eq!(it.next(&bytes, LIMITS), Ok(Some(Unit::Extended(33, UnitEnd::Sync))));
        assert_eq!(it.next(&bytes[33..], LIMITS), Ok(Some(Unit::Query(8))));
    }

    #[test]
    fn a_query_without_a_sync_before_it_ends_the_unit() {
        let bytes = [message(b'P', 9), message(b'Q', 3)].concat();
        let mut it = Intake::default();
        assert_eq!(it.next(&bytes, LIMITS), Ok(Some(Unit::Extended(14, UnitEnd::Open))));
        assert_eq!(it.next(&bytes[14..], LIMITS), Ok(Some(Unit::Query(8))));
    }

    #[test]
    fn what_cannot_be_trusted_is_a_violation_at_its_header() {
        let next = |bytes: &[u8]| Intake::default().next(bytes, LIMITS);
        assert_eq!(next(b"Q\0\0\0\x03"), Err(Violation::Length));
        assert_eq!(next(b"z\0\0\0\x04"), Err(Violation::UnknownType(b'z')));
        assert_eq!(next(b"Q\0\0\x10\0"), Err(Violation::TooLong(4097)));
        assert_eq!(next(b"S\x40\0\0\0"), Err(Violation::Length));
        let open = [message(b'P', 60), message(b'B', 60)].concat();
        assert_eq!(next(&open), Err(Violation::TooLong(130)));
    }

    #[test]
    fn flush_ends_a_unit_and_the_next_one_begins_behind_it() {
        let bytes = [message(b'P', 9), message(b'H', 0), message(b'B', 2), message(b'S', 0)].concat();
        let mut it = Intake::default();
        assert_eq!(it.next(&bytes, LIMITS), Ok(Some(Unit::Extended(19, UnitEnd::Flush))));
        assert_eq!(it.next(&bytes[19..], LIMITS), Ok(Some(Unit::Extended(12, UnitEnd::Sync))));
        assert_eq!(it.next(&bytes[31..], LIMITS), Ok(None));
        // Alone, too.
        assert_eq!(it.next(&message(b'S', 0), LIMITS), Ok(Some(Unit::Extended(5, UnitEnd::Sync))));
        assert_eq!(it.next(&message(b'H', 0), LIMITS), Ok(Some(Unit::Extended(5, UnitEnd::Flush))));
    }

    #[test]
    fn what_stands_alone_is_a_unit_of_its_own() {
        for (tag, want) in [
            (b'Q', Unit::Query(8)),
            (b'F', Unit::FunctionCall(8)),
            (b'd', Unit::Stray(8)),
            (b'c', Unit::Stray(8)),
            (b'f', Unit::Stray(8)),
            (b'X', Unit::Terminate),
        ] {
            let bytes = message(tag, 3);
            assert_eq!(Intake::default().next(&bytes, LIMITS), Ok(Some(want)));
            // Not before it is there in full.
            assert_eq!(Intake::default().next(&bytes[..7], LIMITS), Ok(None));
            // Behind extended messages it ends their unit, before it is there in full.
            let behind = [message(b'P', 9), bytes].concat();
            let mut it = Intake::default();
            assert_eq!(it.next(&behind[..18], LIMITS), Ok(None));
            assert_eq!(it.next(&behind[..19], LIMITS), Ok(Some(Unit::Extended(14, UnitEnd::Open))));
            assert_eq!(it.next(&behind[14..], LIMITS), Ok(Some(want)));
        }
    }

    #[test]
    fn every_extended_message_is_part_of_a_unit() {
        let bytes = [b'P', b'B', b'D', b'E', b'C', b'S'].map(|it| message(it, 2 * usize::from(it != b'S')));
        let bytes = bytes.concat();
        let want = Ok(Some(Unit::Extended(bytes.len(), UnitEnd::Sync)));
        assert_eq!(Intake::default().next(&bytes, LIMITS), want);
        // However it comes.
        for step in 1..bytes.len() {
            let (mut it, mut end) = (Intake::default(), 0);
            while end + step < bytes.len() {
                end += step;
                assert_eq!(it.next(&bytes[..end], LIMITS), Ok(None));
            }
            assert_eq!(it.next(&bytes, LIMITS), want);
        }
    }

    #[test]
    fn a_unit_may_be_as_long_as_the_limit_and_no_longer() {
        let just = [message(b'P', 45), message(b'B', 40), message(b'S', 0)].concat();
        assert_eq!(just.len(), 100);
        assert_eq!(Intake::default().next(&just, LIMITS), Ok(Some(Unit::Extended(100, UnitEnd::Sync))));
        let over = [message(b'P', 45), message(b'B', 41), message(b'S', 0)].concat();
        assert_eq!(Intake::default().next(&over, LIMITS), Err(Violation::TooLong(101)));
        assert_eq!(Intake::default().next(&message(b'Q', 95), LIMITS), Ok(Some(Unit::Query(100))));
        assert_eq!(Intake::default().next(&message(b'Q', 96)[..5], LIMITS), Err(Violation::TooLong(101)));
    }

    #[test]
    fn small_messages_are_bounded_whatever_the_limit() {
        let limits = Limits { message_bytes_max: 1 << 20 };
        for tag in [b'C', b'D', b'E', b'H', b'S', b'X', b'c'] {
            let bytes = message(tag, 9_996);
            assert_eq!(Intake::default().next(&bytes[..5], limits), Err(Violation::Length), "{tag}");
            let fits = Intake::default().next(&message(tag, 9_995), limits);
            assert!(fits.is_ok(), "{tag}");
        }
        assert_eq!(Intake::default().next(&message(b'Q', 9_996)[..5], limits), Ok(None));
    }

    #[test]
    fn violations_are_told_in_postgresqls_words() {
        for (violation, text) in [
            (Violation::Length, "invalid message length"),
            (Violation::UnknownType(b'z'), "invalid frontend message type 122"),
            (Violation::TooLong(101), "invalid message length"),
        ] {
            let refusal = violation.refusal(LIMITS);
            assert_eq!((refusal.state().0, refusal.message()), ("08P01", text));
            let too_long = matches!(violation, Violation::TooLong(_));
            assert_eq!(
                (refusal.hint_text().is_some(), refusal.detail_text().is_some()),
                (too_long, too_long)
            );
        }
    }
}

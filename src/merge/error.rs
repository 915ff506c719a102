//! The errors that PostgreSQL's own operators raise, in its words, and what Keyway says where it cannot
//! merge.

use std::borrow::Cow;

use crate::base::{Reason, Refusal, SqlState};

fn raised(state: &'static str, message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::MultiShardRead, SqlState(state), message)
}

/// 22003, with the words of the operator: `bigint out of range`.
pub(super) fn out_of_range(message: impl Into<Cow<'static, str>>) -> Refusal {
    raised("22003", message)
}

pub(super) fn division_by_zero() -> Refusal {
    raised("22012", "division by zero")
}

pub(super) fn interval_out_of_range() -> Refusal {
    raised("22008", "interval out of range")
}

pub(super) fn invalid_text(type_name: &str, text: &str) -> Refusal {
    raised("22P02", format!("invalid input syntax for type {type_name}: \"{text}\""))
}

/// A server sent what its own description does not allow.
pub(super) fn malformed(what: &'static str) -> Refusal {
    Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, what)
}

/// The plan and the rows do not fit each other.
pub(super) fn inconsistent(message: impl Into<Cow<'static, str>>) -> Refusal {
    raised("XX000", message)
}

pub(super) fn unsupported(message: impl Into<Cow<'static, str>>, hint: &'static str) -> Refusal {
    Refusal::unsupported(Reason::MultiShardRead, message, hint)
}

/// What has to be kept to merge is more than the configuration allows.
pub(super) fn memory(bytes_max: usize) -> Refusal {
    Refusal::new(
        Reason::Limit,
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("merging rows of several shards needs more than {bytes_max} bytes"),
    )
    .hint("restrict the statement to one shard with its shard key, or to fewer groups or distinct rows")
}

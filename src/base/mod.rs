//! Words that every layer shares: ids, roles, positions and the error that a client is shown.

mod consistency;
mod number_hasher;
mod refusal;

pub use consistency::Consistency;
pub use number_hasher::NumberHasher;
pub use refusal::{Blame, Reason, Refusal, SqlState};

use std::fmt;

/// A shard's place in its database's list of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A server's place in its shard's list of servers, in the order of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId {
    pub shard: ShardId,
    pub index: u16,
}

/// What a server is, or what a statement asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Primary,
    Replica,
}

impl Role {
    /// The value of the `role` label of every metric.
    pub fn label(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Whether a statement can change anything. What is not known to be a read is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    Write,
}

impl Access {
    pub fn label(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
        }
    }

    /// A text that reads and writes writes.
    pub fn and(self, other: Access) -> Access {
        if self == Access::Read { other } else { Access::Write }
    }
}

/// A position in the write-ahead log, in bytes (`pg_lsn`). Comparable within one timeline only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

impl std::str::FromStr for Lsn {
    type Err = ();

    /// Reads PostgreSQL's own form, two hexadecimal halves: `16/B374D848`.
    fn from_str(text: &str) -> Result<Lsn, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let half = |it: &str| u32::from_str_radix(it, 16).map_err(|_| ());
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A place in the log. Positions compare within a timeline only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub timeline: u32,
    pub lsn: Lsn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_and_prints_postgres_form() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("16-B3".parse::<Lsn>(), Err(()));
        assert_eq!("1/1FFFFFFFF".parse::<Lsn>(), Err(()));
    }
}

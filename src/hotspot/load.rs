//! What is counted of statements.

use std::ops::AddAssign;

/// Exact sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub calls: u64,
    /// Sent to clients or changed.
    pub rows: u64,
    /// Of answers.
    pub bytes: u64,
    /// From the request's last byte to the server, to the end of its answer.
    pub time_us: u64,
    pub errors: u64,
}

impl Load {
    /// The part of each of so many keys: all had the call, and share what it cost.
    #[inline]
    pub fn shared_by(&self, keys: u64) -> Load {
        if keys <= 1 {
            return *self;
        }
        Load { rows: self.rows / keys, bytes: self.bytes / keys, time_us: self.time_us / keys, ..*self }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, more: Load) {
        self.calls += more.calls;
        self.rows += more.rows;
        self.bytes += more.bytes;
        self.time_us += more.time_us;
        self.errors += more.errors;
    }
}

/// What load is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    Calls,
    Time,
    Bytes,
}

impl Dimension {
    pub const COUNT: usize = 3;
    pub const ALL: [Dimension; Dimension::COUNT] = [Dimension::Calls, Dimension::Time, Dimension::Bytes];

    pub fn label(self) -> &'static str {
        match self {
            Dimension::Calls => "calls",
            Dimension::Time => "time",
            Dimension::Bytes => "bytes",
        }
    }

    pub fn of(self, load: &Load) -> u64 {
        match self {
            Dimension::Calls => load.calls,
            Dimension::Time => load.time_us,
            Dimension::Bytes => load.bytes,
        }
    }
}

//! Each shard counts the lines that it was sent; an error is to name the client's.

use std::collections::VecDeque;

/// Runs of lines that are kept for one shard, 16 bytes each: far more than the buffers between here and a server
/// hold, so that a line in which it can still find an error is among them.
const RUNS_MAX: usize = 1 << 19;

/// Of one shard.
#[derive(Clone, Debug, Default)]
pub struct LineMap {
    /// The last line of each run as the shard and as the client counts; within a run both count alike.
    runs: VecDeque<(u64, u64)>,
    own: u64,
}

impl LineMap {
    /// The shard is sent a record of `lines` lines, of which the last is the client's line `last`.
    pub fn add(&mut self, lines: u64, last: u64) {
        let before = self.own;
        self.own += lines;
        match self.runs.back_mut() {
            Some(run) if run.0 == before && run.1 + lines == last => *run = (self.own, last),
            _ => {
                if self.runs.len() == RUNS_MAX {
                    self.runs.pop_front();
                }
                self.runs.push_back((self.own, last));
            }
        }
    }

    /// It has been sent nothing yet.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The client's line for the shard's; `total` is how many the client has sent. `None` for one that is not kept.
    pub fn clients(&self, line: u64, total: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.0 < line);
        match self.runs.get(at) {
            // What came before the first run that is kept.
            Some(_) if at == 0 && self.runs.len() == RUNS_MAX => None,
            Some((own, clients)) => Some(clients.saturating_sub(own - line)),
            None => Some(total + (line - self.own)),
        }
    }
}

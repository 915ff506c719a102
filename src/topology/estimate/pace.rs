//! When to ask a server again: sooner where an answer is waited for, and a replica when it can say something new. Never less
//! often while nobody reads or writes: the first who does needs to know at once who is primary and who is near.

use std::time::Duration;

use super::Estimate;
use super::membership::Membership;
use crate::base::Lsn;

const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// While writes wait for any server to be a primary.
const BACKOFF_AWAITED_MAX: Duration = Duration::from_millis(250);
/// Part of the interval.
const SOON_PART: u32 = 4;

/// In order of haste.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// After the primary's next sample: until then nothing that a replica can say makes it fresher.
    Following,
    /// At `probe_interval`.
    Usual,
    /// In a part of `probe_interval`.
    Soon,
}

impl Pace {
    /// From one question to the next. After failures the interval, doubled with every one after the first, so that a
    /// dead server is not flooded and one that only paused is asked again soon. Up to a quarter is taken off by chance, so
    /// that many probers do not come back in step.
    pub fn pause(self, interval: Duration, failures: u32, entropy: &mut u64) -> Duration {
        if failures == 0 {
            return match self {
                Pace::Soon => interval / SOON_PART,
                Pace::Usual => interval,
                // The primary's sample comes first, unless the primary does not answer.
                Pace::Following => interval + interval / 2,
            };
        }
        let max = if self == Pace::Soon { BACKOFF_AWAITED_MAX } else { BACKOFF_MAX };
        let doubled = interval.saturating_mul(1 << (failures - 1).min(6)).min(max.max(interval));
        *entropy = entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        doubled - doubled * (*entropy >> 56) as u32 / 1024
    }
}

impl Estimate {
    /// How to go on after a report of this server.
    pub fn pace(&self, at: usize) -> Pace {
        // Every write of the shard waits for whichever server becomes its primary.
        if self.primary.is_none() {
            return Pace::Soon;
        }
        match (self.replayed_by_member(at), self.ring.newest()) {
            (Some(position), Some(newest)) if position >= newest.lsn => Pace::Following,
            // Reads of what was written last wait for this one alone. One outside of the set is no use to them.
            (Some(_), Some(_)) => Pace::Soon,
            _ => Pace::Usual,
        }
    }

    /// Replicas to be asked now that the primary has a new sample.
    pub fn followers(&self) -> impl Iterator<Item = usize> {
        (0..self.servers.len()).filter(|it| self.replayed_by_member(*it).is_some())
    }

    fn replayed_by_member(&self, at: usize) -> Option<Lsn> {
        let server = self.servers.get(at)?;
        let is_member = matches!(server.membership, Membership::In { .. });
        server.seen.as_ref().filter(|_| is_member)?.position
    }

    pub fn is_primary(&self, at: usize) -> bool {
        self.primary == Some(at)
    }
}

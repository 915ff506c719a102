//! The name of a server, looked up again and again: connections stay with the address that they were made to, and it may
//! not be the server's any more.
//!
//! ```text
//!  unknown ── addresses ──▶ known ── addresses, those of before among them ──▶ known
//!                             │ an address of before is not among them: moved
//!                             ▼
//!                           known, the new ones
//! ```
//! A lookup that fails, or that finds nothing, changes nothing: who cannot be asked has not said that anybody is gone.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::feed::Feed;
use super::probe::stopped;

/// What a name stood for when it was looked up last.
#[derive(Debug, Default)]
pub struct Name {
    /// In order; none before the first answer.
    addresses: Vec<IpAddr>,
    is_failing: bool,
}

/// What an answer changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Nothing,
    /// Connections may lead to an address that the name has no more.
    Moved {
        from: Vec<IpAddr>,
        to: Vec<IpAddr>,
    },
    /// `is_first` of several in a row.
    Failed {
        problem: String,
        is_first: bool,
    },
}

impl Name {
    pub fn hear(&mut self, answer: io::Result<Vec<IpAddr>>) -> Heard {
        let problem = match answer {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.sort_unstable();
                addresses.dedup();
                self.is_failing = false;
                return self.now(addresses);
            }
            Ok(_) => "it has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        Heard::Failed { problem, is_first: !std::mem::replace(&mut self.is_failing, true) }
    }

    fn now(&mut self, to: Vec<IpAddr>) -> Heard {
        let from = std::mem::replace(&mut self.addresses, to.clone());
        if from.iter().all(|it| to.contains(it)) { Heard::Nothing } else { Heard::Moved { from, to } }
    }
}

/// Looks the name of the feed's server up every `interval`, until told to stop or until nobody listens.
pub async fn follow(feed: Arc<Feed>, interval: Duration, mut stopping: watch::Receiver<bool>) {
    let following = async {
        let (mut name, host) = (Name::default(), feed.spec.backend.host.clone());
        while feed.is_heard() {
            match name.hear(feed.spec.lookup.addresses(&host).await) {
                Heard::Nothing => {}
                Heard::Moved { from, to } => {
                    tracing::info!(%host, ?from, ?to, "the name of a server stands for other addresses now");
                    feed.move_away();
                }
                Heard::Failed { problem, is_first } => {
                    feed.not_found();
                    if is_first {
                        tracing::warn!(%host, %problem, "cannot look up the name of a server");
                    }
                }
            }
            // Up to a quarter is taken off by chance, so that many names are not asked for in step.
            let part = getrandom::u32().unwrap_or_default() >> 24;
            tokio::time::sleep(interval - interval * part / 1024).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = stopped(&mut stopping) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of answers by the last byte of their addresses, `!` being one that fails: `.` nothing, `M` moved, `F` failed for the
    /// first time, `f` again.
    fn check(answers: &[&str], expect: &str) {
        let mut name = Name::default();
        let letter = |it: &&str| {
            let addresses = it.bytes().map(|it| IpAddr::from([127, 0, 0, it])).collect();
            let answer = if *it == "!" { Err(io::Error::other("no answer")) } else { Ok(addresses) };
            match name.hear(answer) {
                Heard::Nothing => '.',
                Heard::Moved { .. } => 'M',
                Heard::Failed { is_first: true, .. } => 'F',
                Heard::Failed { .. } => 'f',
            }
        };
        assert_eq!(answers.iter().map(letter).collect::<String>(), expect, "{answers:?}");
    }

    #[test]
    fn a_name_moves_when_it_loses_an_address() {
        check(&["a", "a", "b", "b", "a"], "..M.M");
        check(&["ab", "ba", "aab"], "...");
        // Nobody is at an address that is wrong.
        check(&["a", "ab", "abc", "b"], "...M");
    }

    #[test]
    fn who_cannot_be_asked_has_not_moved_anybody() {
        check(&["a", "!", "!", "a", "!", "b"], ".Ff.FM");
        check(&["!", "a", ""], "F.F");
        check(&["", "!", "a", "b"], "Ff.M");
    }

    #[test]
    fn a_move_says_from_where_to_where() {
        let address = |it| IpAddr::from([10, 0, 0, it]);
        let mut name = Name::default();
        assert_eq!(name.hear(Ok(vec![address(2), address(1)])), Heard::Nothing);
        let (from, to) = (vec![address(1), address(2)], vec![address(2)]);
        assert_eq!(name.hear(Ok(vec![address(2)])), Heard::Moved { from, to });
    }
}

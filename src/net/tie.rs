//! What others have found out of the peer of a connection that somebody uses. Its user is woken and looks; a
//! connection whose peer says nothing would tell nothing by itself.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// ```text
///   sound ◀──── restore ──── doubtful       cut: for good
///     └─────── doubt ───────────▶└──── cut ────▶▲
///     └────────────── cut ──────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound = 0,
    /// Its peer may be gone. Whoever can do without what it has asked for had better ask another one.
    Doubtful = 1,
    /// Nothing goes over it any more, whatever its peer still says.
    Cut = 2,
}

/// Of one connection, shared by its stream and those who watch its peer.
#[derive(Debug, Default)]
pub struct Tie(AtomicU8);

impl Tie {
    pub fn doubt(&self) {
        self.go(State::Sound, State::Doubtful);
    }

    pub fn restore(&self) {
        self.go(State::Doubtful, State::Sound);
    }

    pub fn cut(&self) {
        self.0.store(State::Cut as u8, Ordering::Release);
    }

    pub fn is_doubtful(&self) -> bool {
        self.0.load(Ordering::Relaxed) != State::Sound as u8
    }

    pub fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed) == State::Cut as u8
    }

    fn go(&self, from: State, to: State) {
        let _ = self.0.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_cut() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server is not the primary any more",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_end_and_a_cut_does_not() {
        let tie = Tie::default();
        assert!(!tie.is_doubtful() && tie.check().is_ok());
        tie.doubt();
        assert!(tie.is_doubtful() && !tie.is_cut() && tie.check().is_ok());
        tie.restore();
        assert!(!tie.is_doubtful());
        tie.cut();
        tie.restore();
        tie.doubt();
        assert!(tie.is_cut() && tie.is_doubtful());
        assert_eq!(tie.check().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}

//! Who has come before: keys that come once should not take the slots of a full table (the doorkeeper of Einziger, Friedman and
//! Manes 2017, "TinyLFU: a highly efficient cache admission policy").

use super::Sums;
use super::table::Home;

const WORD_BITS: usize = u64::BITS as usize;

/// Lets in whom it has turned away since it was opened, whoever shares a bit with such a one, and whoever brings more than a
/// limit. Who has a place inside it does not know.
///
/// ```text
///   closed: lets all in --open--> turns away who is new --open--> of whom it knows none again
///      ^                               |
///      +--close, open without calls----+
/// ```
#[derive(Clone)]
pub struct Doorkeeper {
    /// A power of two of bits, one for several keys.
    bits: Box<[u64]>,
    shift: u32,
    /// The most that is turned away of one key from an `open` to the next. While closed, no calls.
    limit: Sums,
}

impl Doorkeeper {
    /// Closed. `bits` is a power of two from 64 on.
    pub fn new(bits: usize) -> Doorkeeper {
        let shift = u32::BITS - bits.trailing_zeros();
        Doorkeeper { bits: vec![0; bits / WORD_BITS].into(), shift, limit: Sums::default() }
    }

    /// Nobody has come so far. A limit without calls turns nobody away.
    pub fn open(&mut self, limit: Sums) {
        self.bits.fill(0);
        self.limit = limit;
    }

    pub fn close(&mut self) {
        self.limit = Sums::default();
    }

    /// Whether a key stays out for this time, with what it brings: no more than the limit, and once at most from an `open` to
    /// the next.
    #[inline]
    pub fn turns_away(&mut self, home: Home, brings: Sums) -> bool {
        let Sums { calls, time_us } = self.limit;
        if calls == 0 || brings.calls > calls || brings.time_us > time_us {
            return false;
        }
        let (word, bit) = self.bit(home);
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }

    /// What `turns_away` looks at, for no more than that it is in the cache then.
    #[inline]
    pub fn fetch(&self, home: Home) -> u64 {
        self.bits[self.bit(home).0]
    }

    /// Whether a key gets in whatever it brings.
    #[inline]
    pub fn lets_in(&self, home: Home) -> bool {
        let (word, bit) = self.bit(home);
        (self.limit.calls == 0) | (self.bits[word] & bit != 0)
    }

    #[inline]
    fn bit(&self, home: Home) -> (usize, u64) {
        let at = (home.word() >> self.shift) as usize;
        (at / WORD_BITS, 1 << (at % WORD_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Sums = Sums { calls: 1, time_us: 10 };

    #[test]
    fn each_is_turned_away_once_from_an_opening_to_the_next() {
        for bits in [64, 256, 1 << 24] {
            let mut doorkeeper = Doorkeeper::new(bits);
            let [first, second] = [0, u32::MAX].map(Home::of_word);
            assert!(!doorkeeper.turns_away(first, ONE) && doorkeeper.lets_in(first), "it is closed");
            for _ in 0..2 {
                doorkeeper.open(ONE);
                assert!(!doorkeeper.lets_in(first) && doorkeeper.turns_away(first, ONE));
                assert!(doorkeeper.lets_in(first) && !doorkeeper.turns_away(first, ONE));
                assert!(doorkeeper.turns_away(second, ONE) && !doorkeeper.turns_away(second, ONE));
            }
        }
    }

    #[test]
    fn who_brings_more_than_the_limit_is_never_turned_away() {
        let (mut doorkeeper, home) = (Doorkeeper::new(64), Home::of_word(7));
        doorkeeper.open(ONE);
        for more in [Sums { calls: 2, ..ONE }, Sums { time_us: 11, ..ONE }] {
            assert!(!doorkeeper.turns_away(home, more));
        }
        assert!(doorkeeper.turns_away(home, Sums { calls: 0, time_us: 10 }));
        doorkeeper.open(Sums { calls: 0, ..ONE });
        assert!(!doorkeeper.turns_away(home, Sums { calls: 0, time_us: 0 }));
        doorkeeper.open(ONE);
        doorkeeper.close();
        assert!(!doorkeeper.turns_away(home, ONE));
    }
}

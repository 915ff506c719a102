//! Who has come before: keys that come once should not take the slots of a full table (the doorkeeper of Einziger, Friedman and
//! Manes 2017, "TinyLFU: a highly efficient cache admission policy").

use super::Sums;
use super::table::Home;

const WORD_BITS: usize = u64::BITS as usize;

/// Lets in who came before, whoever shares a bit with such a one, and whoever brings more than a limit.
///
/// ```text
///   closed: lets all in --open--> keeps count --open--> keeps count anew, of nobody
///      ^                               |
///      +-------------close-------------+
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

    /// Whether a key stays out for this time, with what it brings: once at most, and no more than the limit.
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

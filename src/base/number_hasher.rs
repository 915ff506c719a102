//! For maps whose keys are numbers that no client chooses freely: hashes already, or ids that Keyway gives out in order.

use std::hash::Hasher;

/// One multiplication, which spreads ids and keeps hashes as good as they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|it| self.0 = self.0.rotate_left(8) ^ u64::from(*it));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// Of a wide hash one half is as good as the other.
    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
    }
}

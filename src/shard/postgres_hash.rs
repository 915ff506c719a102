//! What PostgreSQL's hash partitioning computes (`compute_partition_hash_value` of partbounds.c): a 64-bit
//! hash of each column by its type's extended hash function with one seed, combined over the columns. The
//! bytes go through Bob Jenkins' lookup3 as `hash_bytes_extended` of hashfn.c runs it on a little-endian
//! machine. Nothing in it has changed since PostgreSQL 11, nor may it: rows lie where it put them.

use super::key::KeyValue;

/// `HASH_PARTITION_SEED` of partition.h.
const SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// The hash that `satisfies_hash_partition` divides by the modulus. A composite key is a `Row`.
pub fn partition_hash(key: &KeyValue) -> u64 {
    match key {
        KeyValue::Row(columns) => columns.iter().fold(0, |hash, it| combine(hash, extended(it))),
        one => combine(0, extended(one)),
    }
}

/// `hash_combine64`.
fn combine(a: u64, b: u64) -> u64 {
    a ^ b.wrapping_add(0x49A0_F4DD_15E5_A8E3).wrapping_add(a << 54).wrapping_add(a >> 7)
}

/// The extended hash function of the type's operator class.
fn extended(key: &KeyValue) -> u64 {
    match key {
        KeyValue::Bool(it) => hash_uint32((*it).into()),
        KeyValue::Int(it) | KeyValue::Micros(it) => hash_int8(*it),
        KeyValue::Days(it) => hash_uint32(*it as u32),
        KeyValue::Numeric(it) => hash_numeric(*it),
        KeyValue::Text(it) => hash_bytes(it.as_bytes()),
        KeyValue::Bytes(it) => hash_bytes(it),
        KeyValue::Uuid(it) => hash_bytes(it),
        // PostgreSQL has no partition key within a partition key.
        KeyValue::Row(_) => partition_hash(key),
    }
}

/// `hashint8extended`; values that int4 and int2 hold hash as they would there.
fn hash_int8(value: i64) -> u64 {
    let (low, high) = (value as u32, (value >> 32) as u32);
    hash_uint32(low ^ if value >= 0 { high } else { !high })
}

/// `hash_numeric_extended`: the digits of base 10,000 without the zeros at both ends, and the weight of the
/// first. Neither sign nor scale takes part.
fn hash_numeric(value: i128) -> u64 {
    let (mut rest, mut groups) = (value.unsigned_abs(), [0u16; 10]);
    let mut count = 0;
    while rest > 0 {
        groups[count] = (rest % 10_000) as u16;
        rest /= 10_000;
        count += 1;
    }
    let Some(weight) = count.checked_sub(1) else { return SEED.wrapping_sub(1) };
    let end = groups.iter().position(|it| *it != 0).unwrap_or(0);
    let mut bytes = [0u8; 20];
    let digits = groups[end..count].iter().rev().flat_map(|it| it.to_le_bytes());
    bytes.iter_mut().zip(digits).for_each(|(to, from)| *to = from);
    hash_bytes(&bytes[..2 * (count - end)]) ^ weight as u64
}

/// The three words of lookup3.
struct State(u32, u32, u32);

impl State {
    fn new(length: usize) -> State {
        let start = 0x9e37_79b9_u32.wrapping_add(length as u32).wrapping_add(3_923_095);
        let mut state = State(start, start, start);
        state.0 = state.0.wrapping_add((SEED >> 32) as u32);
        state.1 = state.1.wrapping_add(SEED as u32);
        state.mix();
        state
    }

    fn mix(&mut self) {
        let State(a, b, c) = self;
        let step = |x: &mut u32, y: &mut u32, z: &mut u32, bits| {
            *x = x.wrapping_sub(*z) ^ z.rotate_left(bits);
            *z = z.wrapping_add(*y);
        };
        step(a, b, c, 4);
        step(b, c, a, 6);
        step(c, a, b, 8);
        step(a, b, c, 16);
        step(b, c, a, 19);
        step(c, a, b, 4);
    }

    fn finish(mut self) -> u64 {
        let State(a, b, c) = &mut self;
        let step = |x: &mut u32, y: &u32, bits| *x = (*x ^ *y).wrapping_sub(y.rotate_left(bits));
        step(c, b, 14);
        step(a, c, 11);
        step(b, a, 25);
        step(c, b, 16);
        step(a, c, 4);
        step(b, a, 14);
        step(c, b, 24);
        u64::from(*b) << 32 | u64::from(*c)
    }

    fn add(&mut self, words: [u32; 3]) {
        self.0 = self.0.wrapping_add(words[0]);
        self.1 = self.1.wrapping_add(words[1]);
        self.2 = self.2.wrapping_add(words[2]);
    }
}

/// `hash_bytes_uint32_extended`.
fn hash_uint32(value: u32) -> u64 {
    let mut state = State::new(4);
    state.add([value, 0, 0]);
    state.finish()
}

/// `hash_bytes_extended`. The lowest byte of the third word of the tail belongs to the length.
fn hash_bytes(bytes: &[u8]) -> u64 {
    let word = |it: &[u8]| it.iter().rev().fold(0, |word, it| word << 8 | u32::from(*it));
    let mut state = State::new(bytes.len());
    let chunks = bytes.chunks_exact(12);
    let tail = chunks.remainder();
    for chunk in chunks {
        state.add([word(&chunk[..4]), word(&chunk[4..8]), word(&chunk[8..])]);
        state.mix();
    }
    let (a, rest) = tail.split_at(tail.len().min(4));
    let (b, c) = rest.split_at(rest.len().min(4));
    state.add([word(a), word(b), word(c) << 8]);
    state.finish()
}

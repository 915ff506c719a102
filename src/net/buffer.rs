//! Buffers that are held only while bytes are in flight (DESIGN D1): an idle client holds none.

use std::cell::{RefCell, RefMut};
use std::sync::Arc;

use thread_local::ThreadLocal;

use crate::metrics::{Limit, LimitHits};

/// Room of a fresh buffer. One read of a small query and most replies fit.
const BUFFER_BYTES: usize = 16 * 1024;
/// Room of a buffer that takes the place of one which a client has filled, by COPY or by a long message: fewer system calls
/// for the same bytes. (A large result gains nothing by it: a server sends it by 8 kB, and what comes is passed on
/// before more of it has come.)
const WIDE_BYTES: usize = 64 * 1024;
/// So many of them are kept for each worker at most, for there are few that stream at any time.
const WIDE_SPARE_MAX: usize = 8;
/// A buffer that grew beyond this for one long message is freed, not kept.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// Bytes received and not yet dealt with.
#[derive(Debug, Default)]
pub struct Buffer {
    pub(super) bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// A read has left no room: there is more to read, most likely. One that holds nothing is never full.
    pub fn is_full(&self) -> bool {
        !self.is_empty() && self.bytes.len() == self.bytes.capacity()
    }

    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Moves what is left to the front when the tail has no room for a useful read.
    pub(super) fn make_room(&mut self) {
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < BUFFER_BYTES / 4 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

impl Buffer {
    /// Where received bytes are appended, with room for some.
    pub(super) fn room_to_read(&mut self) -> &mut Vec<u8> {
        self.make_room();
        if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(BUFFER_BYTES / 4);
        }
        &mut self.bytes
    }

    /// How much may be appended at once: what there is room for, but something always.
    pub(super) fn room(&self) -> usize {
        (self.bytes.capacity() - self.bytes.len()).max(BUFFER_BYTES / 4)
    }

    /// Takes out all that is there.
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = self.filled().to_vec();
        self.consume(bytes.len());
        bytes
    }
}

#[derive(Default)]
struct Spare {
    narrow: Vec<Vec<u8>>,
    wide: Vec<Vec<u8>>,
}

/// Spare buffers, shared by all connections of a worker: each worker has its own, so that no lock and no cache line goes
/// from one to another. The last one given back is the first taken, while the cache has it still.
#[derive(Clone)]
pub struct BufferStock {
    spare: Arc<ThreadLocal<RefCell<Spare>>>,
    /// Of each worker.
    spare_max: usize,
    hits: LimitHits,
}

impl BufferStock {
    pub fn new(spare_max: usize, hits: LimitHits) -> BufferStock {
        BufferStock { spare: Arc::default(), spare_max, hits }
    }

    pub fn spare_max(&self) -> usize {
        self.spare_max
    }

    /// This thread's.
    fn spare(&self) -> RefMut<'_, Spare> {
        self.spare.get_or_default().borrow_mut()
    }

    pub fn take(&self) -> Buffer {
        let spare = self.spare().narrow.pop();
        Buffer { bytes: spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES)), start: 0 }
    }

    /// Moves what `buffer` holds into a wide one, unless it is one already.
    pub fn widen(&self, buffer: &mut Buffer) {
        if buffer.bytes.capacity() >= WIDE_BYTES {
            return;
        }
        let spare = self.spare().wide.pop();
        let mut bytes = spare.unwrap_or_else(|| Vec::with_capacity(WIDE_BYTES));
        bytes.extend_from_slice(buffer.filled());
        self.give_back(std::mem::replace(buffer, Buffer { bytes, start: 0 }));
    }

    pub fn give_back(&self, buffer: Buffer) {
        let mut bytes = buffer.bytes;
        bytes.clear();
        match bytes.capacity() {
            WIDE_BYTES..=KEPT_BYTES_MAX => {
                let wide = &mut self.spare().wide;
                if wide.len() < self.spare_max.min(WIDE_SPARE_MAX) {
                    wide.push(bytes);
                }
            }
            BUFFER_BYTES..WIDE_BYTES => {
                let narrow = &mut self.spare().narrow;
                if narrow.len() < self.spare_max {
                    narrow.push(bytes);
                } else {
                    self.hits.hit(Limit::Buffers);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn a_stock_keeps_no_more_than_its_bound_and_no_giant() {
        let hits = LimitHits::register(&Registry::default()).unwrap();
        let stock = BufferStock::new(1, hits);
        let (first, second) = (stock.take(), stock.take());
        stock.give_back(first);
        stock.give_back(second);
        assert_eq!(stock.spare().narrow.len(), 1);
        stock.take();
        stock.give_back(Buffer { bytes: Vec::with_capacity(KEPT_BYTES_MAX + 1), start: 0 });
        let spare = stock.spare();
        assert!(spare.narrow.is_empty() && spare.wide.is_empty());
    }

    #[test]
    fn a_wide_buffer_holds_what_the_narrow_one_did_and_both_are_kept() {
        let stock = BufferStock::new(2, LimitHits::register(&Registry::default()).unwrap());
        let mut it = stock.take();
        it.bytes.resize(it.bytes.capacity(), 7);
        assert!(it.is_full());
        it.consume(BUFFER_BYTES - 3);
        stock.widen(&mut it);
        assert_eq!((it.filled(), it.is_full(), it.bytes.capacity()), (&[7, 7, 7][..], false, WIDE_BYTES));
        let at = it.bytes.as_ptr();
        stock.widen(&mut it);
        assert_eq!(it.bytes.as_ptr(), at);
        stock.give_back(it);
        let kept = || {
            let spare = stock.spare();
            (spare.narrow.len(), spare.wide.len())
        };
        assert_eq!(kept(), (1, 1));
        let mut next = stock.take();
        stock.widen(&mut next);
        assert_eq!(next.bytes.as_ptr(), at);
        for _ in 0..3 {
            stock.give_back(Buffer { bytes: Vec::with_capacity(WIDE_BYTES), start: 0 });
        }
        assert_eq!(kept(), (1, 2));
    }

    #[test]
    fn consumed_bytes_make_room() {
        let mut it = Buffer { bytes: Vec::with_capacity(BUFFER_BYTES), start: 0 };
        it.bytes.resize(BUFFER_BYTES, 7);
        it.consume(BUFFER_BYTES - 3);
        it.make_room();
        assert_eq!(it.filled(), [7, 7, 7]);
        it.consume(3);
        assert!(it.is_empty());
    }
}

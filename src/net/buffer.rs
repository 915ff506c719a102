//! Buffers that are held only while bytes are in flight (DESIGN D1): an idle client holds none.

use std::cell::{RefCell, RefMut};
use std::sync::Arc;

use thread_local::ThreadLocal;

use crate::metrics::{Limit, LimitHits};

/// Room of a fresh buffer. One read of a small query and most replies fit.
const BUFFER_BYTES: usize = 16 * 1024;
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

/// Spare buffers, shared by all connections of a worker: each worker has its own, so that no lock and no cache line goes
/// from one to another. The last one given back is the first taken, while the cache has it still.
#[derive(Clone)]
pub struct BufferStock {
    spare: Arc<ThreadLocal<RefCell<Vec<Vec<u8>>>>>,
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
    fn spare(&self) -> RefMut<'_, Vec<Vec<u8>>> {
        self.spare.get_or_default().borrow_mut()
    }

    pub fn take(&self) -> Buffer {
        let spare = self.spare().pop();
        Buffer { bytes: spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES)), start: 0 }
    }

    pub fn give_back(&self, buffer: Buffer) {
        let mut bytes = buffer.bytes;
        if (BUFFER_BYTES..=KEPT_BYTES_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            let mut spare = self.spare();
            if spare.len() < self.spare_max {
                spare.push(bytes);
            } else {
                self.hits.hit(Limit::Buffers);
            }
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
        assert_eq!(stock.spare().len(), 1);
        stock.take();
        stock.give_back(Buffer { bytes: Vec::with_capacity(KEPT_BYTES_MAX + 1), start: 0 });
        assert!(stock.spare().is_empty());
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

//! Cursors of a transaction, by numbers that it gives once.

/// Those whose DECLARE stands, and which no CLOSE has ended. Nothing is kept of others, however many there were.
#[derive(Debug, Default)]
pub(super) struct Declared {
    last: u32,
    /// Ascending.
    open: Vec<u32>,
}

impl Declared {
    /// Given to the latest cursor; 0 before there is one.
    pub fn last(&self) -> u32 {
        self.last
    }

    pub fn add(&mut self) -> u32 {
        self.last += 1;
        self.open.push(self.last);
        self.last
    }

    pub fn has(&self, number: u32) -> bool {
        self.open.binary_search(&number).is_ok()
    }

    /// No ROLLBACK TO brings it back (manual, "CLOSE").
    pub fn close(&mut self, number: u32) {
        if let Ok(at) = self.open.binary_search(&number) {
            self.open.remove(at);
        }
    }

    pub fn close_all(&mut self) {
        self.open.clear();
    }

    /// ROLLBACK TO where `last` was the latest.
    pub fn undo_behind(&mut self, last: u32) {
        self.open.truncate(self.open.partition_point(|it| *it <= last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_or_undone_is_not_kept() {
        let mut it = Declared::default();
        let (a, b, c) = (it.add(), it.add(), it.add());
        it.close(b);
        it.close(b);
        assert!(it.has(a) && !it.has(b) && it.has(c));
        it.undo_behind(b);
        assert!(it.has(a) && !it.has(c));
        assert_eq!(it.add(), c + 1, "no number is given twice");
        it.close_all();
        assert!(!it.has(a) && it.open.is_empty());
        for _ in 0..300_000 {
            let number = it.add();
            it.close(number);
            assert!(it.open.is_empty());
        }
    }
}

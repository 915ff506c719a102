//! Numbers that every statement changes. Each thread adds to cells of its own, by a load and a store; who looks sums them up. A
//! counter that all share takes an instruction that waits for whatever the processor has under way, and with several workers a
//! line of the cache that goes from one to the other.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use thread_local::ThreadLocal;

/// `N` numbers.
#[derive(Debug)]
pub struct Tally<const N: usize>(ThreadLocal<Cells<N>>);

/// Of one thread, which alone writes them: lines of the cache that no other one writes.
#[derive(Debug)]
#[repr(align(64))]
pub struct Cells<const N: usize>([AtomicU64; N]);

impl<const N: usize> Tally<N> {
    /// This thread's, for as long as nothing is awaited: a task may go on in another one.
    #[inline]
    pub fn own(&self) -> &Cells<N> {
        self.0.get_or(|| Cells(array::from_fn(|_| AtomicU64::new(0))))
    }

    /// Of all threads, those that have ended too. What one has added another may have taken off.
    pub fn sum(&self, cell: usize) -> u64 {
        self.cells(cell).fold(0, u64::wrapping_add)
    }

    pub fn sum_of_fractions(&self, cell: usize) -> f64 {
        self.cells(cell).map(f64::from_bits).sum()
    }

    fn cells(&self, cell: usize) -> impl Iterator<Item = u64> {
        self.0.iter().map(move |it| it.0[cell].load(Ordering::Relaxed))
    }
}

impl<const N: usize> Cells<N> {
    #[inline]
    pub fn add(&self, cell: usize, more: u64) {
        let it = &self.0[cell];
        it.store(it.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// A cell has numbers or fractions.
    #[inline]
    pub fn add_fraction(&self, cell: usize, more: f64) {
        let it = &self.0[cell];
        let sum = f64::from_bits(it.load(Ordering::Relaxed)) + more;
        it.store(sum.to_bits(), Ordering::Relaxed);
    }

    #[inline]
    pub fn take_off(&self, cell: usize, less: u64) {
        self.add(cell, less.wrapping_neg());
    }
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Tally<N> {
        Tally(ThreadLocal::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_and_take_off_is_one_sum() {
        let tally = Tally::<3>::default();
        // One after the other: the second has the place of the first, and each other's numbers stay.
        for _ in 0..2 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..1_000 {
                            tally.own().add(0, 2);
                            tally.own().add(1, 1);
                        }
                    });
                }
            });
        }
        tally.own().take_off(1, 7_999);
        assert_eq!([0, 1, 2].map(|it| tally.sum(it)), [16_000, 1, 0]);
        let fractions = Tally::<1>::default();
        std::thread::scope(|scope| {
            for it in [0.5, 0.25] {
                let fractions = &fractions;
                scope.spawn(move || fractions.own().add_fraction(0, it));
            }
        });
        assert_eq!(fractions.sum_of_fractions(0), 0.75);
    }
}

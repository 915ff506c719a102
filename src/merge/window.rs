//! LIMIT, OFFSET and FETCH over rows that come in their final order.

use super::spec::Window;

/// What becomes of the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Skip,
    Show,
    /// Only if it equals the last one shown in the sort keys; else nothing more is shown.
    IfTie,
    /// This and all further rows are not shown.
    Stop,
}

#[derive(Clone, Debug)]
pub(super) struct WindowState {
    window: Window,
    skipped: u64,
    pub shown: u64,
}

impl WindowState {
    pub fn new(window: Window) -> WindowState {
        WindowState { window, skipped: 0, shown: 0 }
    }

    pub fn next(&mut self) -> Pass {
        match self.window.count {
            Some(0) => return Pass::Stop,
            Some(count) if self.shown >= count => {
                return if self.window.with_ties { Pass::IfTie } else { Pass::Stop };
            }
            _ => {}
        }
        if self.skipped < self.window.offset {
            self.skipped += 1;
            return Pass::Skip;
        }
        Pass::Show
    }

    /// No further row can be shown, whatever it is.
    pub fn is_full(&self) -> bool {
        self.window.count.is_some_and(|it| it == 0 || self.shown >= it && !self.window.with_ties)
    }

    /// Rows that are needed from the front, if it is known how many.
    pub fn wanted(&self) -> Option<u64> {
        let count = self.window.count.filter(|_| !self.window.with_ties)?;
        count.checked_add(self.window.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_skipped_shown_and_stopped() {
        let check = |offset, count, with_ties, want: &[Pass]| {
            let mut state = WindowState::new(Window { offset, count, with_ties });
            let got: Vec<Pass> = want
                .iter()
                .map(|_| {
                    let pass = state.next();
                    state.shown += u64::from(matches!(pass, Pass::Show | Pass::IfTie));
                    pass
                })
                .collect();
            assert_eq!(got, want, "OFFSET {offset} LIMIT {count:?}, ties {with_ties}");
        };
        check(1, Some(2), false, &[Pass::Skip, Pass::Show, Pass::Show, Pass::Stop]);
        check(0, Some(1), true, &[Pass::Show, Pass::IfTie, Pass::IfTie]);
        check(2, None, false, &[Pass::Skip, Pass::Skip, Pass::Show, Pass::Show]);
        check(5, Some(0), false, &[Pass::Stop]);
        check(5, Some(0), true, &[Pass::Stop]);
    }
}

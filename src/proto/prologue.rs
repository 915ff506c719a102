//! What begins an open transaction again on another server: BEGIN, and of what was done since the settings and
//! savepoints that still stand.

/// Statements kept to be sent in front of another.
pub const PROLOGUE_MAX: usize = 64;

/// Empty where nobody knows how the transaction began.
#[derive(Debug, Default)]
pub(super) struct Prologue {
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    text: String,
    /// Of a savepoint.
    name: Option<Box<str>>,
}

impl Prologue {
    pub fn begin(text: &str) -> Prologue {
        Prologue { made: vec![Made { text: text.to_owned(), name: None }] }
    }

    pub fn len(&self) -> usize {
        self.made.len()
    }

    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.made.iter().map(|it| &it.text[..])
    }

    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// `false`: there is no more room, or nothing that it could follow.
    #[must_use]
    pub fn push(&mut self, text: &str) -> bool {
        self.add(text, None)
    }

    fn add(&mut self, text: &str, name: Option<&str>) -> bool {
        let fits = !self.made.is_empty() && self.made.len() < PROLOGUE_MAX;
        if fits {
            self.made.push(Made { text: text.to_owned(), name: name.map(Into::into) });
        }
        fits
    }

    /// As `push`.
    #[must_use]
    pub fn savepoint(&mut self, name: &str, text: &str) -> bool {
        self.add(text, Some(name))
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.made.iter().rposition(|it| it.name.as_deref() == Some(name))
    }

    /// What was done since belongs to the savepoint around it. One of a name that is not known is for the server
    /// to judge.
    #[must_use]
    pub fn release(&mut self, name: &str, text: &str) -> bool {
        let Some(at) = self.find(name) else { return self.push(text) };
        let mut index = 0;
        self.made.retain(|it| {
            index += 1;
            index <= at || it.name.is_none()
        });
        true
    }

    /// What was done since is undone; the savepoint stays.
    #[must_use]
    pub fn rollback_to(&mut self, name: &str, text: &str) -> bool {
        let Some(at) = self.find(name) else { return self.push(text) };
        self.made.truncate(at + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(it: &Prologue) -> Vec<&str> {
        it.texts().collect()
    }

    fn begun() -> Prologue {
        let mut it = Prologue::begin("BEGIN");
        assert!(it.push("SET LOCAL a = 1"));
        assert!(it.savepoint("s", "SAVEPOINT s"));
        assert!(it.push("SET LOCAL a = 2"));
        assert!(it.savepoint("t", "SAVEPOINT t"));
        assert!(it.push("SET LOCAL a = 3"));
        it
    }

    #[test]
    fn what_was_rolled_back_is_not_made_again() {
        let mut it = begun();
        assert!(it.rollback_to("t", "ROLLBACK TO t"));
        assert_eq!(it.texts().last(), Some("SAVEPOINT t"));
        assert!(it.rollback_to("s", "ROLLBACK TO s"));
        assert_eq!(texts(&it), ["BEGIN", "SET LOCAL a = 1", "SAVEPOINT s"]);
        assert!(it.rollback_to("t", "ROLLBACK TO t"));
        assert_eq!(it.texts().last(), Some("ROLLBACK TO t"), "an error for the server");
    }

    #[test]
    fn a_released_savepoint_leaves_what_was_set() {
        let mut it = begun();
        assert!(it.release("s", "RELEASE s"));
        assert_eq!(texts(&it), ["BEGIN", "SET LOCAL a = 1", "SET LOCAL a = 2", "SET LOCAL a = 3"]);
        assert!(it.rollback_to("s", "ROLLBACK TO s"));
        assert_eq!(it.len(), 5, "it is not known any more");
    }

    #[test]
    fn of_two_of_a_name_the_later_counts() {
        let mut it = Prologue::begin("BEGIN");
        assert!(it.savepoint("s", "SAVEPOINT s"));
        assert!(it.push("SET LOCAL a = 1"));
        assert!(it.savepoint("s", "SAVEPOINT s"));
        assert!(it.push("SET LOCAL a = 2"));
        assert!(it.rollback_to("s", "ROLLBACK TO s"));
        assert_eq!(texts(&it), ["BEGIN", "SAVEPOINT s", "SET LOCAL a = 1", "SAVEPOINT s"]);
        assert!(it.release("s", "RELEASE s"));
        assert!(it.rollback_to("s", "ROLLBACK TO s"));
        assert_eq!(texts(&it), ["BEGIN", "SAVEPOINT s"]);
    }

    #[test]
    fn pairs_of_savepoint_and_release_take_no_room() {
        let mut it = Prologue::begin("BEGIN");
        for _ in 0..3 * PROLOGUE_MAX {
            assert!(it.savepoint("s", "SAVEPOINT s"));
            assert!(it.release("s", "RELEASE s"));
        }
        assert_eq!(texts(&it), ["BEGIN"]);
        let pushed = (0..PROLOGUE_MAX).filter(|_| it.push("SET LOCAL a = 1")).count();
        assert_eq!((pushed, it.len()), (PROLOGUE_MAX - 1, PROLOGUE_MAX));
        assert!(!Prologue::default().push("SET LOCAL a = 1"), "nobody knows how it began");
    }
}

//! What a read must see (DESIGN D5).

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// What any client of this Keyway has been told is written.
    #[default]
    Global,
    /// What its own session has written, and nothing older than what that has seen.
    Session,
    /// Whatever a replica has that is within `max_lag`.
    Eventual,
    /// No replica.
    Primary,
}

impl Consistency {
    pub const NAMES: &str = "global, session, eventual or primary";

    pub fn of_name(name: &str) -> Option<Consistency> {
        [Consistency::Global, Consistency::Session, Consistency::Eventual, Consistency::Primary]
            .into_iter()
            .find(|it| it.label() == name)
    }

    pub fn label(self) -> &'static str {
        match self {
            Consistency::Global => "global",
            Consistency::Session => "session",
            Consistency::Eventual => "eventual",
            Consistency::Primary => "primary",
        }
    }
}

//! The error that a client is shown when Keyway itself says no.

use std::borrow::Cow;

/// A five-character SQLSTATE (PostgreSQL manual, appendix A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState("0A000");
    pub const PROTOCOL_VIOLATION: SqlState = SqlState("08P01");
    pub const CONNECTION_FAILURE: SqlState = SqlState("08006");
    pub const CONNECTION_DOES_NOT_EXIST: SqlState = SqlState("08003");
    pub const TRANSACTION_RESOLUTION_UNKNOWN: SqlState = SqlState("08007");
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState("22023");
    pub const INVALID_TEXT_REPRESENTATION: SqlState = SqlState("22P02");
    pub const INVALID_BINARY_REPRESENTATION: SqlState = SqlState("22P03");
    pub const NUMERIC_VALUE_OUT_OF_RANGE: SqlState = SqlState("22003");
    pub const INVALID_DATETIME_FORMAT: SqlState = SqlState("22007");
    pub const NOT_NULL_VIOLATION: SqlState = SqlState("23502");
    pub const CHECK_VIOLATION: SqlState = SqlState("23514");
    pub const NO_ACTIVE_SQL_TRANSACTION: SqlState = SqlState("25P01");
    pub const IN_FAILED_SQL_TRANSACTION: SqlState = SqlState("25P02");
    pub const ACTIVE_SQL_TRANSACTION: SqlState = SqlState("25001");
    pub const INVALID_SQL_STATEMENT_NAME: SqlState = SqlState("26000");
    pub const INVALID_PASSWORD: SqlState = SqlState("28P01");
    pub const INVALID_AUTHORIZATION: SqlState = SqlState("28000");
    pub const INVALID_CURSOR_NAME: SqlState = SqlState("34000");
    pub const INVALID_CATALOG_NAME: SqlState = SqlState("3D000");
    pub const SYNTAX_ERROR: SqlState = SqlState("42601");
    pub const UNDEFINED_TABLE: SqlState = SqlState("42P01");
    pub const DUPLICATE_PREPARED_STATEMENT: SqlState = SqlState("42P05");
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState("53300");
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState("54000");
    pub const STATEMENT_TOO_COMPLEX: SqlState = SqlState("54001");
    pub const QUERY_CANCELED: SqlState = SqlState("57014");
    pub const ADMIN_SHUTDOWN: SqlState = SqlState("57P01");
    pub const CANNOT_CONNECT_NOW: SqlState = SqlState("57P03");
    pub const INTERNAL_ERROR: SqlState = SqlState("XX000");
}

/// Why a statement was refused: the bounded `reason` label of `keyway_refusals_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The text could not be understood, so no shard can be named for it.
    Parse,
    /// A table that the config of a sharded database does not list.
    UnlistedTable,
    /// A write without its shard key, or with a key that is not a constant.
    MissingKey,
    /// A NULL key, or a key that no range covers.
    UnmappedKey,
    /// A key value that is not of the map's type.
    BadKey,
    /// A write that would touch two shards, or two shards in one transaction.
    MultiShardWrite,
    /// A read over several shards that would need a merge.
    MultiShardRead,
    /// A change of a shard key column.
    KeyUpdate,
    /// DDL where it cannot be sent to every shard.
    Ddl,
    /// A table that is not the same on every shard.
    Difference,
    /// Session state that is not kept across servers yet.
    SessionState,
    /// A routing hint that is wrong.
    Hint,
    /// No server that may take the statement.
    NoServer,
    /// A limit of the config.
    Limit,
    /// A message that the protocol does not allow here.
    Protocol,
    /// Login refused.
    Auth,
    /// Anything else that is not built yet.
    Unsupported,
}

impl Reason {
    pub const ALL: [Reason; 17] = [
        Reason::Parse,
        Reason::UnlistedTable,
        Reason::MissingKey,
        Reason::UnmappedKey,
        Reason::BadKey,
        Reason::MultiShardWrite,
        Reason::MultiShardRead,
        Reason::KeyUpdate,
        Reason::Ddl,
        Reason::Difference,
        Reason::SessionState,
        Reason::Hint,
        Reason::NoServer,
        Reason::Limit,
        Reason::Protocol,
        Reason::Auth,
        Reason::Unsupported,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Reason::Parse => "parse",
            Reason::UnlistedTable => "unlisted_table",
            Reason::MissingKey => "missing_key",
            Reason::UnmappedKey => "unmapped_key",
            Reason::BadKey => "bad_key",
            Reason::MultiShardWrite => "multi_shard_write",
            Reason::MultiShardRead => "multi_shard_read",
            Reason::KeyUpdate => "key_update",
            Reason::Ddl => "ddl",
            Reason::Difference => "difference",
            Reason::SessionState => "session_state",
            Reason::Hint => "hint",
            Reason::NoServer => "no_server",
            Reason::Limit => "limit",
            Reason::Protocol => "protocol",
            Reason::Auth => "auth",
            Reason::Unsupported => "unsupported",
        }
    }
}

/// Whose doing an error is, for logs and for the decision to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    Client,
    Server,
    Keyway,
}

/// An error in PostgreSQL's form: lower case, no full stop, detail and hint apart (DESIGN D10).
/// Boxed so that a `Result<_, Refusal>` on the path of every query stays one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(Box<Body>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Body {
    reason: Reason,
    state: SqlState,
    message: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
    /// 1-based character in the statement, as field `P` of ErrorResponse.
    position: Option<u32>,
    /// Field `W`.
    context: Option<Cow<'static, str>>,
}

impl Refusal {
    pub fn new(reason: Reason, state: SqlState, message: impl Into<Cow<'static, str>>) -> Refusal {
        let message = message.into();
        Refusal(Box::new(Body {
            reason,
            state,
            message,
            detail: None,
            hint: None,
            position: None,
            context: None,
        }))
    }

    /// A statement that is right in PostgreSQL and that Keyway does not answer: 0A000 with a hint.
    pub fn unsupported(
        reason: Reason,
        message: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Refusal {
        Refusal::new(reason, SqlState::FEATURE_NOT_SUPPORTED, message).hint(hint)
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Refusal {
        self.0.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Refusal {
        self.0.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn at(mut self, position: u32) -> Refusal {
        self.0.position = Some(position);
        self
    }

    /// Where it came up, as PostgreSQL says of a line of COPY.
    #[must_use]
    pub fn within(mut self, context: impl Into<Cow<'static, str>>) -> Refusal {
        self.0.context = Some(context.into());
        self
    }

    pub fn context(&self) -> Option<&str> {
        self.0.context.as_deref()
    }

    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    pub fn state(&self) -> SqlState {
        self.0.state
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn position(&self) -> Option<u32> {
        self.0.position
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.0.message, self.0.state.0)?;
        self.0.detail.iter().try_for_each(|it| write!(f, "; detail: {it}"))?;
        self.0.hint.iter().try_for_each(|it| write!(f, "; hint: {it}"))
    }
}

impl std::error::Error for Refusal {}

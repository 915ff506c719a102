//! What a text reads, writes, calls and asks: the words between PostgreSQL's tree and `route::compile`.
//! Names are as PostgreSQL folds them; nothing here knows a map or a shard.

use std::ops::Range;

/// The statements of one text, in their order.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub statements: Vec<Statement>,
}

/// One statement: a query if `utility` is `None`, else what the utility is, with the query inside it.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    pub utility: Option<Utility>,
    /// `Some(true)` is EXPLAIN ANALYZE, which runs the statement.
    pub explain: Option<bool>,
    /// EXPLAIN (KEYWAY): where it would go is asked.
    pub explains_routing: bool,
    /// Each SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE in it; the outermost one is the first.
    pub levels: Vec<Level>,
    pub calls: Vec<Call>,
    /// The calls of `set_config` that are certain to run once, with arguments that can be read.
    pub settings: Vec<SettingCall>,
    /// CURRENT_TIMESTAMP, CURRENT_USER and their like.
    pub asks_session_value: bool,
    /// A COLLATE is written, other than those that compare bytes.
    pub collates: bool,
    pub schema_change: SchemaChange,
    /// Of COPY FROM STDIN.
    pub copy: Option<CopyFrom>,
    /// Something in it that this module does not know, so that nothing may be concluded.
    pub unknown: Option<&'static str>,
}

/// What COPY FROM STDIN says of its data. It holds for these values of its literals alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    /// `None`: all columns that are not generated, in the table's order.
    pub columns: Option<Vec<String>>,
    /// Or what of it Keyway does not read.
    pub form: Result<CopyForm, &'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyFormat {
    #[default]
    Text,
    Csv,
    Binary,
}

/// How the data is written (manual, "COPY").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyForm {
    pub format: CopyFormat,
    pub delimiter: u8,
    pub null: String,
    pub default: Option<String>,
    /// This and `escape` of CSV alone.
    pub quote: u8,
    pub escape: u8,
    /// The first line is one of names.
    pub header: bool,
}

/// What DDL does to what a catalog says of statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchemaChange {
    #[default]
    None,
    /// No statement does more than before: DROP, an index.
    Harmless,
    Any,
}

/// Of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted = 0,
    ReadCommitted = 1,
    RepeatableRead = 2,
    Serializable = 3,
}

impl Isolation {
    /// By their numbers.
    pub const ALL: [Isolation; 4] = [
        Isolation::ReadUncommitted,
        Isolation::ReadCommitted,
        Isolation::RepeatableRead,
        Isolation::Serializable,
    ];

    /// As `transaction_isolation` says it.
    pub fn name(self) -> &'static str {
        match self {
            Isolation::ReadUncommitted => "read uncommitted",
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        }
    }

    pub fn of_name(name: &str) -> Option<Isolation> {
        Isolation::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// Statements that are not queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Utility {
    Begin {
        read_only: bool,
        isolation: Option<Isolation>,
    },
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint,
    RollbackTo,
    Release,
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    Set(SetStatement),
    /// SET TRANSACTION SNAPSHOT: names a snapshot of one server.
    SetSnapshot,
    Show(String),
    /// `server_file` is COPY from or to a file or program of the server.
    CopyIn {
        server_file: bool,
    },
    CopyOut {
        server_file: bool,
    },
    Ddl,
    /// CREATE TABLE AS, SELECT INTO, CREATE MATERIALIZED VIEW: DDL that holds the rows of its query.
    CreateAs,
    /// Leaves something in the session; the text is the reason's label.
    Session(&'static str),
    /// Gives session state back and changes nothing where there is none: DISCARD TEMP.
    SessionRelease,
    DiscardAll,
    DeallocateAll,
    Deallocate(String),
    /// DECLARE without HOLD, with its query, FETCH, MOVE, CLOSE.
    Cursor(CursorStatement),
    Lock,
    Listen(String),
    /// Of one channel, or of all.
    Unlisten(Option<String>),
    Notify,
    /// SET CONSTRAINTS: dies with the transaction.
    SetConstraints,
    /// CHECKPOINT and what else concerns one server as a whole.
    Server,
}

/// What concerns cursors that end with their transaction. It holds for these values of its literals alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorStatement {
    Declare {
        name: String,
        /// SCROLL is written.
        scroll: bool,
        binary: bool,
    },
    Fetch {
        name: String,
        /// MOVE, which shows no rows.
        moves: bool,
        rows: FetchRows,
    },
    Close {
        name: String,
    },
    CloseAll,
}

/// Of FETCH and MOVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchRows {
    /// So many of the next rows, all that are left by `None`.
    Next(Option<u64>),
    /// Anything else: back, or to a place.
    Elsewhere,
}

impl CursorStatement {
    /// `None` for all of them.
    pub fn name(&self) -> Option<&str> {
        match self {
            CursorStatement::Declare { name, .. }
            | CursorStatement::Fetch { name, .. }
            | CursorStatement::Close { name } => Some(name),
            CursorStatement::CloseAll => None,
        }
    }
}

/// SET and RESET of ordinary settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetStatement {
    /// The name in lower case.
    Assign {
        name: String,
        local: bool,
        value: Assigned,
    },
    Reset {
        name: String,
    },
    ResetAll,
    /// SET TRANSACTION, and SET of `transaction_*`. What it says of READ ONLY, if that is fixed.
    Transaction {
        read_only: Option<bool>,
        isolation: Option<Isolation>,
    },
    /// SET SESSION CHARACTERISTICS: the `default_transaction_*` settings that it assigns.
    Characteristics {
        names: Vec<&'static str>,
    },
}

/// What is known of an assigned value from the fingerprint alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// A keyword or a name, such as `on`, `off`, `utf8`: part of the fingerprint. In lower case.
    Word(String),
    /// A literal, whose value the fingerprint does not fix.
    Literal,
    /// TO DEFAULT of a SET LOCAL.
    Default,
}

/// A function call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `None` also for `pg_catalog`.
    pub schema: Option<String>,
    pub name: String,
    /// Its last argument is the keyword TRUE, as `is_local` of `set_config` may be.
    pub ends_in_true: bool,
}

/// `set_config(name, value, local)` as a column of a SELECT that has one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingCall {
    pub name: Value,
    pub value: Value,
    pub local: bool,
}

/// A table's name as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub schema: Option<String>,
    pub name: String,
}

/// How a query level hangs in the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelRole {
    Root,
    SetOperationArm,
    /// In an expression: EXISTS, IN (SELECT ..), a scalar subquery.
    Sublink,
    FromSubquery,
    Cte,
    InsertSource,
}

/// One query level with its own FROM list.
#[derive(Clone, Debug)]
pub struct Level {
    pub role: LevelRole,
    /// The level in which names that this one does not have are looked up.
    pub parent: Option<usize>,
    /// In the order of the text; the target of a write is the first. A join covers a range of them.
    pub relations: Vec<Relation>,
    /// Aliases of whole joins, which qualify columns of no single relation.
    pub join_names: Vec<String>,
    pub conditions: Vec<Condition>,
    pub equalities: Vec<Equality>,
    pub merged: Vec<Merged>,
    pub outer_joins: Vec<OuterJoin>,
    /// What could not be answered by putting the rows of several shards after one another.
    pub clauses: Vec<Clause>,
    pub write: Option<Write>,
    pub locks: Option<Locks>,
    /// Columns of the result that are listed.
    pub outputs: Vec<OutputColumn>,
    /// Each `*` of the result, with the relation in front of it.
    pub stars: Vec<Option<String>>,
    /// Plain columns of GROUP BY.
    pub groups: Vec<Column>,
    /// For each window function the plain columns of its PARTITION BY; none of a window that has a name.
    pub partitions: Vec<Vec<Column>>,
    /// Of a set operation, whose rows are those of its arms.
    pub set: Option<SetArms>,
    /// `column IN (this level)`, its column one of the level around.
    pub member: Option<Column>,
}

/// A column of a level's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputColumn {
    pub name: String,
    /// The column that it shows as it is.
    pub column: Option<Column>,
}

/// The levels of a set operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetArms {
    pub kind: SetKind,
    pub left: usize,
    pub right: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    UnionAll,
    Union,
    /// INTERSECT and EXCEPT, with or without ALL.
    Compared,
}

impl Level {
    pub fn new(role: LevelRole, parent: Option<usize>) -> Level {
        Level {
            role,
            parent,
            relations: Vec::new(),
            join_names: Vec::new(),
            conditions: Vec::new(),
            equalities: Vec::new(),
            merged: Vec::new(),
            outer_joins: Vec::new(),
            clauses: Vec::new(),
            write: None,
            locks: None,
            outputs: Vec::new(),
            stars: Vec::new(),
            groups: Vec::new(),
            partitions: Vec::new(),
            set: None,
            member: None,
        }
    }
}

/// An entry of a FROM list.
#[derive(Clone, Debug)]
pub struct Relation {
    /// By which name columns are qualified; empty for an unnamed subquery.
    pub name: String,
    pub aliased: bool,
    /// Column aliases hide the table's own column names.
    pub renamed: bool,
    /// `None` for a subquery, a CTE, a function, VALUES.
    pub table: Option<Table>,
    /// Of a subquery or CTE.
    pub level: Option<usize>,
}

/// A predicate that each row made of the relations in `covers` must satisfy.
#[derive(Clone, Debug)]
pub struct Condition {
    pub predicate: Predicate,
    pub covers: Range<usize>,
    /// The relations whose columns it can name: those of its join, or all for WHERE.
    pub scope: Range<usize>,
}

/// `a.x = b.y` among the conjuncts of WHERE or ON. It tells nothing of the relations in a range of
/// `kept` if both its columns are of that range: an outer join keeps their rows where it is false.
#[derive(Clone, Debug)]
pub struct Equality {
    pub columns: (Column, Column),
    pub kept: Vec<Range<usize>>,
    pub scope: Range<usize>,
}

/// JOIN USING (column), or NATURAL JOIN where the columns are not named.
#[derive(Clone, Debug)]
pub struct Merged {
    pub left: Range<usize>,
    pub right: Range<usize>,
    pub column: Option<String>,
}

/// Rows of `kept` come out even where `nullable` has none.
#[derive(Clone, Debug)]
pub struct OuterJoin {
    pub kept: Range<usize>,
    pub nullable: Range<usize>,
}

/// A column as written: up to two qualifiers, the nearest last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub qualifiers: Vec<String>,
    pub name: String,
}

/// A predicate with all forgotten that says nothing of a key.
#[derive(Clone, Debug)]
pub enum Predicate {
    /// `column = value` or `column IN (values)`.
    Equal(Column, Vec<Value>),
    /// `column IS NOT DISTINCT FROM value`, which NULL satisfies too.
    Same(Column, Value),
    /// `column = ANY (array)`. The cast of the value is the array's: `_int8`.
    EqualAny(Column, Value),
    /// `column >= value` and the like: one end of an interval, or both of them.
    Between {
        column: Column,
        from: Option<EndValue>,
        to: Option<EndValue>,
    },
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Never,
    /// May hold for any row.
    Unknown,
}

/// The end of an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndValue {
    pub value: Value,
    pub inclusive: bool,
}

/// A constant, named by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The nth literal of the scan, with an odd number of minus signs in front or not.
    Literal {
        index: u32,
        negative: bool,
        cast: Option<Box<str>>,
    },
    /// `$number`.
    Param {
        number: u16,
        cast: Option<Box<str>>,
    },
    /// TRUE or FALSE, which are keywords.
    Bool(bool),
    Null,
}

/// What keeps the rows of several shards from simply being put after one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clause {
    Aggregate,
    WindowFunction,
    GroupBy,
    Having,
    Distinct,
    OrderBy,
    Limit,
    SetOperation,
    Locking,
    TableSample,
    /// A function of the select list that may be an aggregate.
    UnknownFunction(String),
}

/// FOR UPDATE, FOR SHARE and their like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locks {
    /// The names behind OF; empty means every table of the level.
    pub names: Vec<String>,
}

/// What a level does to its first relation.
#[derive(Clone, Debug)]
pub enum Write {
    Insert {
        /// `None` where the columns are not named.
        columns: Option<Vec<String>>,
        /// Where the table's name begins, in bytes of the text.
        at: usize,
        source: InsertSource,
        /// Columns that ON CONFLICT DO UPDATE assigns.
        conflict_assigns: Vec<String>,
    },
    Update {
        assigns: Vec<String>,
    },
    Delete,
    Merge,
}

/// Where the rows of an INSERT come from.
#[derive(Clone, Debug)]
pub enum InsertSource {
    DefaultValues,
    Rows(Vec<Vec<Field>>),
    /// A SELECT; the fields are unknown where it has a set operation or a star.
    Query {
        level: usize,
        fields: Option<Vec<Field>>,
    },
}

/// One column of an inserted row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Value(Value),
    Column(Column),
    Default,
    Expression,
}

//! SQL text as routing sees it. `scan` is one pass over the bytes: a fingerprint and the places of the
//! literals. `facts` is what PostgreSQL's own grammar says of a text: what each statement reads, writes,
//! calls and asks, with constants named by their places, so that it holds for every text of the fingerprint.

mod body;
mod copy_text;
mod expression;
mod facts;
mod functions;
mod hint;
mod inserted;
mod lexer;
mod literal;
mod normalised;
mod parse;
mod pattern;
mod prepared;
mod query;
mod scan;
mod split;
mod traceparent;
mod type_names;
mod unnamed;
mod utility;

pub use body::{Body, body, named_settings};
pub use copy_text::copy_unescaped;
pub use facts::{
    Assigned, Call, Clause, Column, Condition, CopyForm, CopyFormat, CopyFrom, CursorStatement, EndValue,
    Equality, Facts, FetchRows, Field, InsertSource, Isolation, Level, LevelRole, Locks, Merged, OuterJoin,
    OutputColumn, Predicate, Relation, SchemaChange, SetArms, SetKind, SetStatement, SettingCall, Statement,
    Table, Utility, Value, Write,
};
pub use functions::{BuiltIn, Volatility, built_in};
pub use hint::{HintError, TextHint, text_hint};
pub use inserted::{InsertedRows, RowSpans};
pub use lexer::{Lexer, Malformed, Token, TokenKind};
pub use normalised::normalised;
pub use parse::{NotParsed, Parser};
pub use pattern::Pattern;
pub use prepared::{
    ExecuteName, ExecuteText, PrepareText, execute_names, execute_text, params_max, prepare_names,
    prepare_text,
};
pub use scan::{Literal, LiteralKind, Literals, Scan, scan};
pub use split::{
    Computed, Filled, NotSplit, Split, SplitAggregate, SplitDistinct, SplitGroups, SplitKey, SplitSet,
    SplitWindow, Splitting, Template, WindowValue,
};
pub use traceparent::{Traceparent, traceparent};
pub use unnamed::{ColumnLists, ColumnsPlace, Moves, NamedText};

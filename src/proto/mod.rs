//! The ORDER of messages: what a client may send next, what a server still owes, what a
//! transaction is, what a session has set. Pure: bytes and events in, verdicts out.

mod channels;
mod copy;
mod declared;
mod intake;
mod pipeline;
mod prologue;
mod settings;
mod statements;
mod transaction;

pub use channels::{ChannelChange, ChannelSet, Switchboard, Ticket};
pub use copy::{CopyField, CopyReader, Found, LineMap};
pub use intake::{Intake, Limits, Unit, UnitEnd, Violation};
pub use pipeline::{Complete, Expect, Origin, Part, Piece, Pipeline, Replies, Unexpected, Whole};
pub use prologue::PROLOGUE_MAX;
pub use settings::{Assignment, Settings, quote_literal, quote_name, set_config};
pub use statements::{Evicted, Presence, ServerStatements, StatementBounds, StatementId};
pub use transaction::{Bond, Ended, Mode as TransactionMode, Transaction};

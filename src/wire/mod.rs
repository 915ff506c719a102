//! The bytes of protocol 3: frames, tags and bodies (PostgreSQL manual, chapter "Frontend/Backend
//! Protocol"). Message tags appear as bytes here and nowhere else (DESIGN invariant 2); the ORDER
//! of messages is `proto`'s.

mod bind;
mod cancel;
mod frame;
mod frontend;
mod reply;
mod request;
mod response;
mod row;
mod startup;
mod table;
mod tag;

pub use bind::{Bind, Formats, Values};
pub use cancel::{CancelKey, backend_key, backend_key_data, cancel_request, forwarded_cancel};
pub use frame::{FrameError, HEADER_BYTES, Header, header, run_bytes};
pub use frontend::{
    BodyError, CopyInput, Execute, Parse, Target, copy_data_bytes, copy_input, execute, parse, query_text,
    target,
};
pub use reply::{
    ALL_DEALLOCATED, BIND_COMPLETE, CLOSE_COMPLETE, DEALLOCATED, EMPTY_QUERY, NO_DATA, PARSE_COMPLETE,
    PREPARED, READY_BYTES, Severity, TextRows, authentication_ok, cleartext_wanted, command_complete, error,
    information, md5_wanted, negotiate_version, notice, notification_of, parameter_description,
    parameter_status, ready_for_query, sasl_continue, sasl_final, sasl_methods,
};
pub use request::{
    FLUSH, SYNC, ask, begin_copy_data, bind_renamed, close_portal, close_statement, copy_done, copy_fail,
    describe_statement, end_copy_data, parse_named, password, query, run_unnamed, sasl_initial,
    sasl_response, startup_message, terminate,
};
pub use response::{
    Authentication, ErrorFields, TxStatus, authentication, column_shapes, copied_tag, error_fields,
    map_contexts, map_position, notification, parameter, parameter_oids, plain_answer, row_texts, rows_of,
    tx_status,
};
pub use row::{RowField, RowValues, RowWriter, row_description, row_fields};
pub use startup::{
    ALPN, GSS_ENC_REQUEST, MINOR_MAX, PROTOCOL_3_0, Replication, SSL_REQUEST, Startup, StartupError,
    StartupParameters, TLS_ACCEPTED, TLS_REFUSED, is_direct_tls, startup, tls_answer, tls_request,
};
pub use table::{Column, ColumnType, PORTAL_SUSPENDED, Value, describe_columns, put_row};
pub use tag::{BackendTag, FrontendTag};

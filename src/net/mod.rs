//! Sockets: listening, connecting with a deadline, TLS, and the buffers that bytes pass through. The
//! first layer that knows tokio's I/O; it knows no message.

mod buffer;
mod dial;
mod http;
mod listener;
mod lookup;
mod stream;
mod tie;
mod tls;

pub use buffer::{Buffer, BufferStock};
pub use dial::{DialError, Dialled, connect, dial};
pub use http::{post as http_post, status as http_status};
pub use listener::listen;
pub use lookup::{Lookup, is_name};
pub use stream::{ReadError, Stream, read_message};
pub use tie::Tie;
pub use tls::{
    Acceptor, Acceptors, ClientFacts, Connector, Connectors, Encryption, EndPoint, TlsError, TlsMetrics,
    TlsTerms,
};

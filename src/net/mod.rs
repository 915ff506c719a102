//! Sockets: listening, connecting with a deadline, and the buffers that bytes pass through. The
//! first layer that knows tokio's I/O; it knows no message.

mod buffer;
mod listener;
mod stream;

pub use buffer::{Buffer, BufferStock};
pub use listener::listen;
pub use stream::{ReadError, Stream, connect, read_message};

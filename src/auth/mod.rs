//! Proving who one is: clients to Keyway, Keyway to servers. SCRAM-SHA-256 (RFC 5802, RFC 7677).

mod client_login;
mod scram;
mod server_login;

pub use client_login::{Login, LoginError, NONCE_BYTES, authenticate};
pub use scram::{Exchange, ScramError, Verifier};
pub use server_login::{LoginFailure, answer};

//! Proving who one is: clients to Keyway, Keyway to servers. SCRAM-SHA-256 (RFC 5802, RFC 7677), bound to
//! the TLS connection where there is one (-PLUS), and where
//! the configuration says so MD5 and clear text.

mod client_login;
mod credentials;
mod derivation;
mod md5;
mod proving;
mod scram;
mod server_login;

pub use client_login::{Client, LoginError, NONCE_BYTES, authenticate};
pub use credentials::Credentials;
pub use derivation::Derivation;
pub use server_login::{LoginFailure, ServerChannel, ServerLogin};

#[cfg(test)]
mod tests;

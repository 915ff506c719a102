//! TLS through rustls: towards clients ([`Acceptors`]) and towards servers ([`Connectors`]). Both can be
//! swapped while connections live on what they were made with.

mod acceptor;
mod certificate;
mod connector;
mod metrics;
mod session;
mod verifier;

pub use acceptor::{Acceptor, Acceptors, ClientFacts};
pub use certificate::EndPoint;
pub use connector::{Connector, Connectors, Encryption, end_point};
pub use metrics::TlsMetrics;
pub use session::{TlsSession, TlsTerms};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{SupportedProtocolVersion, version};

use crate::config::TlsVersion;

/// What rustls says against a configuration whose files are in order by themselves.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn of(error: impl std::fmt::Display) -> TlsError {
        TlsError(error.to_string())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    const ALL: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    const NEWEST: &[&SupportedProtocolVersion] = &[&version::TLS13];
    match min {
        TlsVersion::V1_2 => ALL,
        TlsVersion::V1_3 => NEWEST,
    }
}

#[cfg(test)]
mod tests;

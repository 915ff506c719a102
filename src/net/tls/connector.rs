//! Towards servers: with or without TLS, in which order, and what of a server is checked.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection};

use super::certificate::{self, EndPoint};
use super::metrics::TlsMetrics;
use super::session::TlsSession;
use super::verifier::{Level, Verifier};
use super::{TlsError, provider, versions};
use crate::config::{ServerTls, TlsMode, TlsVersion};
use crate::wire;

/// How one attempt to connect goes about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    None,
    /// Asked for, and done without where the server has none.
    Offered,
    Required,
    /// From the first byte, to servers of PostgreSQL 17.
    Direct,
}

/// `server_tls` of one database as it was last read.
#[derive(Debug)]
pub struct Connector {
    /// `None` where TLS is off.
    config: Option<Arc<ClientConfig>>,
    mode: TlsMode,
    is_direct: bool,
    pub metrics: TlsMetrics,
}

impl Connector {
    pub fn new(tls: &ServerTls, metrics: TlsMetrics) -> Result<Connector, TlsError> {
        let config = if tls.mode == TlsMode::Disable { None } else { Some(Arc::new(client_config(tls)?)) };
        Ok(Connector { config, mode: tls.mode, is_direct: tls.is_direct, metrics })
    }

    /// Attempts in their order, as libpq makes them for an sslmode of the same name: the next one follows
    /// where the one before came to grief over TLS.
    pub fn attempts(&self) -> &'static [Encryption] {
        match self.mode {
            TlsMode::Disable => &[Encryption::None],
            TlsMode::Allow => &[Encryption::None, Encryption::Required],
            TlsMode::Prefer => &[Encryption::Offered, Encryption::None],
            _ if self.is_direct => &[Encryption::Direct],
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => &[Encryption::Required],
        }
    }

    /// For a connection that belongs to one with TLS.
    pub fn again(&self) -> Encryption {
        if self.is_direct { Encryption::Direct } else { Encryption::Required }
    }

    pub fn session(&self, host: &str) -> io::Result<TlsSession> {
        let config = self.config.clone().ok_or_else(|| io::Error::other("TLS is off"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(TlsSession::new(connection.into(), Vec::new()))
    }
}

/// Of the certificate that a server has shown.
pub fn end_point(session: &TlsSession) -> Option<EndPoint> {
    session.peer_certificate().and_then(certificate::end_point)
}

fn client_config(tls: &ServerTls) -> Result<ClientConfig, TlsError> {
    let level = match (tls.mode, &tls.authorities) {
        (TlsMode::VerifyFull, Some(it)) => Level::Name(it.clone()),
        (TlsMode::VerifyCa, Some(it)) => Level::Authority(it.clone()),
        (TlsMode::VerifyFull | TlsMode::VerifyCa, None) => {
            return Err(TlsError::of("no authority to verify servers by"));
        }
        _ => Level::Anyone,
    };
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(versions(TlsVersion::V1_2)).map_err(TlsError::of)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(level)));
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(it) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(it.certified_key()))),
    };
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    // Memory for nothing: PostgreSQL's servers resume no session.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The connector for the next connection to servers of one database.
#[derive(Debug)]
pub struct Connectors(ArcSwap<Connector>);

impl Connectors {
    pub fn new(first: Connector) -> Connectors {
        Connectors(ArcSwap::from_pointee(first))
    }

    pub fn current(&self) -> Arc<Connector> {
        self.0.load_full()
    }

    /// Connections that are there stay so.
    pub fn replace(&self, next: Connector) {
        self.0.store(Arc::new(next));
    }
}

//! Towards clients: what Keyway shows them, and what it wants to see of them.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, ServerConnection};

use super::certificate::{self, EndPoint};
use super::metrics::TlsMetrics;
use super::session::TlsSession;
use super::{TlsError, provider, versions};
use crate::config::{ClientTls, TlsMode};
use crate::wire;

/// `[tls]` as it was last read.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    end_point: Option<EndPoint>,
    mode: TlsMode,
}

/// What a handshake has shown.
#[derive(Debug, Default)]
pub struct ClientFacts {
    /// Of the certificate that this client was shown.
    pub end_point: Option<EndPoint>,
    /// The client has shown a certificate that `ca` vouches for.
    pub has_certificate: bool,
    /// Its CN.
    pub common_name: Option<String>,
    /// The name has to be the user's.
    pub is_name_checked: bool,
}

impl Acceptor {
    /// `None` where the mode is `disable`.
    pub fn new(tls: &ClientTls) -> Result<Option<Acceptor>, TlsError> {
        let (Some(identity), true) = (&tls.identity, tls.mode > TlsMode::Disable) else { return Ok(None) };
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions(tls.min_version)).map_err(TlsError::of)?;
        let builder = match &tls.authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities.roots(), provider());
                // As PostgreSQL, whose ssl_ca_file has every certificate checked and none required.
                let optional = tls.mode < TlsMode::VerifyCa;
                let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().map_err(TlsError::of)?)
            }
        };
        let resolver = SingleCertAndKey::from(identity.certified_key());
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![wire::ALPN.to_vec()];
        // No client of PostgreSQL resumes a session, and PostgreSQL offers none.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let end_point = identity.certificate().and_then(certificate::end_point);
        Ok(Some(Acceptor { config: Arc::new(config), end_point, mode: tls.mode }))
    }

    /// `ahead` is what has been received of the handshake already.
    pub fn session(&self, ahead: Vec<u8>) -> io::Result<TlsSession> {
        let connection = ServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        Ok(TlsSession::new(connection.into(), ahead))
    }

    /// Of a handshake that is done.
    pub fn facts(&self, session: &TlsSession) -> ClientFacts {
        let certificate = session.peer_certificate();
        ClientFacts {
            end_point: self.end_point.clone(),
            has_certificate: certificate.is_some(),
            common_name: certificate.and_then(certificate::common_name),
            is_name_checked: self.mode == TlsMode::VerifyFull,
        }
    }

    /// Whether a client may come without TLS too.
    pub fn is_required(&self) -> bool {
        self.mode >= TlsMode::Require
    }
}

/// The acceptor for the next client.
#[derive(Debug)]
pub struct Acceptors {
    current: ArcSwapOption<Acceptor>,
    pub metrics: TlsMetrics,
}

impl Acceptors {
    pub fn new(first: Option<Acceptor>, metrics: TlsMetrics) -> Acceptors {
        Acceptors { current: ArcSwapOption::new(first.map(Arc::new)), metrics }
    }

    /// `None` is no TLS.
    pub fn current(&self) -> Option<Arc<Acceptor>> {
        self.current.load_full()
    }

    /// Who is connected stays so.
    pub fn replace(&self, next: Option<Acceptor>) {
        self.current.store(next.map(Arc::new));
    }
}

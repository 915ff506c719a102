//! Handshakes, by side and result.

use prometheus::IntCounter;

use crate::metrics::{RegisterError, Registry};

#[derive(Clone, Debug)]
pub struct TlsMetrics {
    clients: Handshakes,
    servers: Handshakes,
}

#[derive(Clone, Debug)]
struct Handshakes {
    ok: IntCounter,
    failed: IntCounter,
}

/// A handshake under way. One that is dropped, because time is up, has failed.
pub struct Handshake<'a> {
    counters: &'a Handshakes,
    is_done: bool,
}

impl TlsMetrics {
    pub fn register(registry: &Registry) -> Result<TlsMetrics, RegisterError> {
        let all = registry.counters(
            "keyway_tls_handshakes_total",
            "TLS handshakes with clients and with servers, by result: ok, failed.",
            &["side", "result"],
        )?;
        let of = |side: &str| Handshakes {
            ok: all.with_label_values(&[side, "ok"]),
            failed: all.with_label_values(&[side, "failed"]),
        };
        Ok(TlsMetrics { clients: of("client"), servers: of("server") })
    }

    pub fn with_client(&self) -> Handshake<'_> {
        Handshake { counters: &self.clients, is_done: false }
    }

    pub fn with_server(&self) -> Handshake<'_> {
        Handshake { counters: &self.servers, is_done: false }
    }
}

impl Handshake<'_> {
    pub fn done(mut self) {
        self.is_done = true;
        self.counters.ok.inc();
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.counters.failed.inc();
        }
    }
}

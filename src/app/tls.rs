//! TLS of a running proxy: made of a configuration, and swapped for that of the next one.

use std::sync::Arc;

use crate::client::Shared;
use crate::config::Config;
use crate::net::{Acceptor, Acceptors, Connector, Connectors, TlsError, TlsMetrics};

/// All of one configuration, made before anything is swapped: an error changes nothing.
pub struct Next<'a> {
    config: &'a Config,
    metrics: &'a TlsMetrics,
    acceptor: Option<Acceptor>,
    /// In the order of the configuration's databases.
    connectors: Vec<Connector>,
}

impl<'a> Next<'a> {
    pub fn new(config: &'a Config, metrics: &'a TlsMetrics) -> Result<Next<'a>, TlsError> {
        let acceptor = Acceptor::new(&config.tls)?;
        let connectors = config.databases.iter().map(|it| Connector::new(&it.server_tls, metrics.clone()));
        Ok(Next { config, metrics, acceptor, connectors: connectors.collect::<Result<_, _>>()? })
    }

    /// Modes, certificates, keys and authorities hold for the next connection, of clients and to the servers
    /// of each database; who is connected stays so, and pools keep their connections.
    pub fn take_over(self, before: Option<&Shared>) -> (Arc<Acceptors>, Vec<Arc<Connectors>>) {
        let acceptors = match before {
            Some(before) => {
                before.tls.replace(self.acceptor);
                before.tls.clone()
            }
            None => Arc::new(Acceptors::new(self.acceptor, self.metrics.clone())),
        };
        let mut connectors = Vec::new();
        for (database, next) in self.config.databases.iter().zip(self.connectors) {
            connectors.push(match before.and_then(|it| it.databases.get(&database.name)) {
                Some(database) => {
                    database.tls.replace(next);
                    database.tls.clone()
                }
                None => Arc::new(Connectors::new(next)),
            });
        }
        (acceptors, connectors)
    }
}

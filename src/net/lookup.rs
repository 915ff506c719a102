//! What the name of a host stands for, without connecting to it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Asks for the addresses of a name.
#[derive(Clone)]
pub struct Lookup(Arc<dyn Fn(String) -> Answer + Send + Sync>);

impl Lookup {
    /// As connecting does it: by the system's resolver, whose own time-outs bound it. Nothing keeps the answers.
    pub fn of_system() -> Lookup {
        Lookup::by(|host| async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|it| it.ip()).collect())
        })
    }

    pub fn by<F>(ask: impl Fn(String) -> F + Send + Sync + 'static) -> Lookup
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Lookup(Arc::new(move |host| Box::pin(ask(host))))
    }

    pub async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        (self.0)(host.to_owned()).await
    }
}

/// Whether there is something to look up.
pub fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{Installation, Options, PostgresError, Server};

/// A primary and its streaming replicas.
#[derive(Debug)]
pub struct Shard {
    pub name: String,
    pub primary: Server,
    pub replicas: Vec<Server>,
}

impl Shard {
    /// Starts `name`-primary and `name`-replica1, 2, ... below `dir`.
    pub async fn start(
        installation: &Arc<Installation>,
        dir: &Path,
        name: &str,
        replicas: usize,
        options: &Options,
    ) -> Result<Shard, PostgresError> {
        let primary = Server::primary(installation, dir, &format!("{name}-primary"), options).await?;
        let names: Vec<String> = (1..=replicas).map(|it| format!("{name}-replica{it}")).collect();
        let replicas = try_join_all(names.iter().map(|it| primary.replica(dir, it))).await?;
        Ok(Shard { name: name.to_owned(), primary, replicas })
    }

    /// The primary first.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// Until every replica shows all that is committed on the primary now.
    pub async fn wait_until_replayed(&self) -> Result<(), PostgresError> {
        try_join_all(self.replicas.iter().map(|it| it.wait_until_replayed(&self.primary))).await.map(|_| ())
    }

    /// Stops replicas last, so that they have all that the primary wrote.
    pub async fn stop(&mut self, mode: super::StopMode) -> Result<(), PostgresError> {
        self.primary.stop(mode).await?;
        for replica in &mut self.replicas {
            replica.stop(mode).await?;
        }
        Ok(())
    }
}

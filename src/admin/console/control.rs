//! Commands that change something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Console;
use super::command::Command;
use crate::base::{Reason, Refusal, SqlState};
use crate::client::{Database, Shared};
use crate::pool::Pool;

/// Between looks at whether connections have closed.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

impl Console {
    /// Returns when it is done; a notice tells more. Cancel safe: dropped, it waits no longer, and what it has said
    /// of databases stays.
    pub(super) async fn change(&self, command: &Command) -> Result<Option<String>, Refusal> {
        let shared = self.latest.load();
        match command {
            Command::Reload => return self.operator.reload().map(Some),
            Command::Shutdown(how) => self.operator.shut_down(*how),
            Command::Pause(name) => self.pause(&shared, &databases(&shared, name.as_ref())?).await?,
            Command::Resume(name) => resume(&shared, &databases(&shared, name.as_ref())?)?,
            Command::Reconnect(name) => {
                let now = Instant::now();
                databases(&shared, name.as_ref())?
                    .iter()
                    .for_each(|it| for_each_pool(&shared, it, |it| it.renew(now)));
            }
            Command::Disable(name) => disable(&shared, name, true)?,
            Command::Enable(name) => disable(&shared, name, false)?,
            Command::Kill(name) => kill(&shared, &databases(&shared, name.as_ref())?),
            Command::KillClient(id) => kill_client(&shared, *id)?,
            Command::WaitClose(name) => {
                let names = names(&databases(&shared, name.as_ref())?);
                self.wait_until(&names, |it| !it.is_closing()).await;
            }
            Command::Show(_) | Command::ShowLoad(_) | Command::Session(_) => {}
        }
        Ok(None)
    }

    /// New transactions wait from now on; returns when the last one has ended and its server is closed.
    async fn pause(&self, shared: &Shared, databases: &[Arc<Database>]) -> Result<(), Refusal> {
        if let [only] = databases
            && only.traffic.is_paused()
        {
            return Err(state(format!("database \"{}\" is already paused", only.name)));
        }
        for database in databases {
            database.traffic.pause();
            for_each_pool(shared, database, Pool::pause);
        }
        self.wait_until(&names(databases), |it| it.open_count() == 0).await;
        Ok(())
    }

    /// For every pool of these databases, those that reloads make and replace in the meantime too.
    async fn wait_until(&self, names: &[String], holds: impl Fn(&Pool) -> bool) {
        loop {
            let shared = self.latest.load();
            let pools = shared.ledger.pools();
            if pools
                .iter()
                .filter(|it| names.iter().any(|of| **of == *it.name().database))
                .all(|it| holds(it))
            {
                return;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

fn state(message: String) -> Refusal {
    Refusal::new(Reason::Unsupported, SqlState("55000"), message)
}

fn no_database(name: &str) -> Refusal {
    Refusal::new(Reason::Unsupported, SqlState::INVALID_CATALOG_NAME, format!("no such database: {name}"))
        .hint("SHOW DATABASES lists them")
}

/// The one named, or all.
fn databases(shared: &Shared, name: Option<&String>) -> Result<Vec<Arc<Database>>, Refusal> {
    match name {
        None => Ok(shared.databases.values().cloned().collect()),
        Some(name) => match shared.databases.get(name) {
            Some(it) => Ok(vec![it.clone()]),
            None => Err(no_database(name)),
        },
    }
}

fn names(databases: &[Arc<Database>]) -> Vec<String> {
    databases.iter().map(|it| it.name.clone()).collect()
}

fn for_each_pool(shared: &Shared, database: &Database, visit: impl FnMut(&Arc<Pool>)) {
    let pools = shared.ledger.pools();
    pools.iter().filter(|it| *it.name().database == *database.name).for_each(visit);
}

fn resume(shared: &Shared, databases: &[Arc<Database>]) -> Result<(), Refusal> {
    if let [only] = databases
        && !only.traffic.is_paused()
    {
        return Err(state(format!("database \"{}\" is not paused", only.name)));
    }
    for database in databases {
        // Who paused it may have changed rows past Keyway.
        if let Some(it) = &database.protection {
            it.answers.forget();
        }
        // Pools first: whoever is let go finds them open.
        for_each_pool(shared, database, Pool::resume);
        database.traffic.resume();
    }
    Ok(())
}

fn disable(shared: &Shared, name: &str, disabled: bool) -> Result<(), Refusal> {
    let database = shared.databases.get(name).ok_or_else(|| no_database(name))?;
    database.traffic.set_disabled(disabled);
    Ok(())
}

/// Clients and their servers at once; whoever comes now waits for RESUME.
fn kill(shared: &Shared, databases: &[Arc<Database>]) {
    for database in databases {
        database.traffic.pause();
        for_each_pool(shared, database, Pool::pause);
        shared.sessions.all().iter().filter(|it| *it.database == *database.name).for_each(|it| it.kill());
    }
}

fn kill_client(shared: &Shared, id: u64) -> Result<(), Refusal> {
    let found = shared.sessions.get(id).ok_or_else(|| {
        let message = format!("no client with id {id}");
        Refusal::new(Reason::Unsupported, SqlState("42704"), message).hint("SHOW CLIENTS has it in column id")
    })?;
    found.kill();
    Ok(())
}

//! Clients of the console: they log in as all do, and are handed over to whoever serves them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;

use super::Latest;
use super::registry::{Identity, Registered};
use crate::base::{Reason, Refusal, SqlState};
use crate::cancel;
use crate::config::CONSOLE_DATABASES;
use crate::net::{Buffer, Stream};
use crate::wire::StartupParameters;

/// Who may use the console. Names of users of the config.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// May do everything.
    pub admins: BTreeSet<String>,
    /// May look.
    pub viewers: BTreeSet<String>,
}

impl Rights {
    pub fn may_look(&self, user: &str) -> bool {
        self.admins.contains(user) || self.viewers.contains(user)
    }
}

/// A client that has logged in to the console.
pub struct Visitor {
    pub stream: Stream,
    /// What it has sent behind its login.
    pub buffer: Buffer,
    pub place: Place,
}

/// What it has in common with sessions.
pub struct Place {
    pub record: Registered,
    pub cancel: cancel::Registered,
}

/// What serves the console.
pub trait Console: Send + Sync + 'static {
    fn serve(&self, visitor: Visitor) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// No database of a config has such a name.
pub(super) fn is_console(database: &str) -> bool {
    CONSOLE_DATABASES.contains(&database)
}

pub(super) fn let_in(
    parameters: StartupParameters,
    latest: &Latest,
    peer: Option<SocketAddr>,
    cancel: cancel::Registered,
) -> Result<Place, Refusal> {
    let shared = latest.load();
    if !shared.rights.may_look(&parameters.user) {
        let message = format!("permission denied for database \"{}\"", parameters.database);
        return Err(Refusal::new(Reason::Auth, SqlState("42501"), message)
            .detail("It is the console of keyway.")
            .hint("name the user in admin_users or stats_users in the configuration of keyway"));
    }
    let name = |it: &(String, String)| it.0 == "application_name";
    let application_name = parameters.settings.into_iter().find(name).map(|it| it.1.into());
    let record = shared.sessions.register(Identity {
        database: CONSOLE_DATABASES[0].into(),
        user: parameters.user.into(),
        peer,
        pid: cancel.pid(),
        application_name,
    });
    if *shared.stopping.borrow() {
        record.call();
    }
    Ok(Place { record, cancel })
}

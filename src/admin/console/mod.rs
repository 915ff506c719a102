//! The SQL console: a database that is none, in which SHOW tells what is and a few words change it. Answers come
//! from snapshots; what the process has to do itself, it is asked for.

mod command;
mod control;
mod hotspots;
mod protection;
mod replicas;
mod session;
mod stats;
mod tables;

pub use command::Shutdown;
pub use stats::{StatTotals, totals_of};

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use crate::base::Refusal;
use crate::client::{self, Latest, Visitor};
use crate::config::Config;

/// What only the process can do, or knows.
pub trait Operator: Send + Sync + 'static {
    fn config(&self) -> Config;
    /// What has changed, in a line.
    fn reload(&self) -> Result<String, Refusal>;
    fn shut_down(&self, how: Shutdown);
    /// Totals by database as they were some time ago, for averages.
    fn stats_before(&self) -> Option<(Instant, BTreeMap<String, StatTotals>)>;
}

pub struct Console {
    latest: Arc<Latest>,
    operator: Arc<dyn Operator>,
}

impl Console {
    pub fn new(latest: Arc<Latest>, operator: Arc<dyn Operator>) -> Console {
        Console { latest, operator }
    }
}

impl client::Console for Console {
    fn serve(&self, visitor: Visitor) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(session::serve(self, visitor))
    }
}

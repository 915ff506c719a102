//! What the console asks of the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Drain;
use super::process::{Process, ReloadError, tell};
use super::source::ProcessSource;
use crate::admin::{Operator, Shutdown, StatTotals};
use crate::base::{Reason, Refusal, SqlState};
use crate::config::Config;

pub struct ProcessOperator {
    process: Arc<Process>,
    source: Arc<ProcessSource>,
}

impl ProcessOperator {
    pub fn new(process: Arc<Process>, source: Arc<ProcessSource>) -> ProcessOperator {
        ProcessOperator { process, source }
    }
}

impl Operator for ProcessOperator {
    fn config(&self) -> Config {
        self.process.config()
    }

    fn reload(&self) -> Result<String, Refusal> {
        let reloaded = self.process.reload();
        tell(&reloaded);
        reloaded.map(|it| it.to_string()).map_err(|error| refusal(&error))
    }

    fn shut_down(&self, how: Shutdown) {
        self.process.end(match how {
            Shutdown::Timeout => Drain::Timeout,
            Shutdown::WaitForServers => Drain::Transactions,
            Shutdown::WaitForClients => Drain::Clients,
        });
    }

    fn stats_before(&self) -> Option<(Instant, BTreeMap<String, StatTotals>)> {
        self.source.stats_before()
    }
}

/// PostgreSQL's state for a configuration file that has errors (`ProcessConfigFileInternal` in guc.c).
fn refusal(error: &ReloadError) -> Refusal {
    let refusal = Refusal::new(Reason::Unsupported, SqlState("F0000"), error.to_string())
        .hint("everything stays as it was; keyway check --config FILE tells the same");
    match error {
        ReloadError::Problems(problems) => {
            let lines = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
            refusal.detail(lines.join("\n"))
        }
        _ => refusal,
    }
}

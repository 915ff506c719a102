//! The statements that the demo suggests, and the proof that they go where routing says: view `users_here`
//! and RETURNING tell the port of the server that answers.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::Role;
use crate::config::Config;
use crate::route::{Decision, KeySource, Router, SessionView};
use crate::sql::Parser;

use super::shop::{Shop, dutch_users};

/// A replica that is behind is rightly passed over; on a busy machine one may be for a while.
const FRESH_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
const PLANS_MAX: usize = 16;

/// A statement whose first column is the port of the server that answers.
#[derive(Debug)]
pub struct Line {
    pub about: &'static str,
    pub sql: &'static str,
    rows: Rows,
}

#[derive(Clone, Copy, Debug)]
enum Rows {
    Exactly(usize),
    Dutch,
}

pub const LINES: [Line; 3] = [
    Line {
        about: "one user's newest orders: a replica of the shard that owns user 42",
        sql: "SELECT u.server_port, u.name, o.order_id, o.amount FROM users_here u \
              JOIN orders o ON o.user_id = u.user_id WHERE u.user_id = 42 ORDER BY o.order_id DESC LIMIT 2",
        rows: Rows::Exactly(2),
    },
    Line {
        about: "no key: replicas of all shards",
        sql: "SELECT server_port, user_id, name FROM users_here WHERE country = 'NL'",
        rows: Rows::Dutch,
    },
    Line {
        about: "a write: the primary of the shard that owns user 42",
        sql: "INSERT INTO orders (user_id, amount) VALUES (42, 19.99) \
              RETURNING current_setting('port') AS server_port, order_id, amount",
        rows: Rows::Exactly(1),
    },
];

/// A line with where routing sends it.
#[derive(Debug)]
pub struct Stop {
    line: &'static Line,
    decision: Decision,
    explained: String,
}

/// Asks routing about every line. Call it before a proxy runs in this process: `Parser` tolerates no other.
pub fn plan(config: &Config) -> Result<Vec<Stop>, String> {
    let database = config.databases.first().ok_or("the configuration has no database")?;
    let router = Router::new(database, PLANS_MAX, Arc::new(Parser::new()));
    LINES
        .iter()
        .map(|line| {
            let planned = router.plan(line.sql);
            let keys = KeySource { text: line.sql, literals: &planned.literals, params: None };
            let decision = router.decide(&planned.plan, &keys, &SessionView::default());
            let decision = decision.map_err(|refusal| format!("{}: {refusal}", line.sql))?;
            Ok(Stop { line, decision, explained: router.explain(line.sql, &[])? })
        })
        .collect()
}

/// Runs every line with psql and writes what it answered and how it was routed.
///
/// # Errors
/// The lines that did not hold, each with the reason.
pub async fn run(
    psql: &Path,
    url: &str,
    shop: &Shop,
    stops: &[Stop],
    out: &mut impl io::Write,
) -> Result<(), String> {
    let mut problems = Vec::new();
    for stop in stops {
        let (answer, verdict) = visit(psql, url, shop, stop).await;
        let held = match &verdict {
            Ok(servers) => format!("answered by {servers}: as routed"),
            Err(problem) => format!("DID NOT HOLD: {problem}"),
        };
        let explained = indented(&stop.explained);
        // Nobody may be reading any more; the exit status says it all the same.
        let _ = writeln!(
            out,
            "{}\n  {}\n{}{explained}  {held}\n",
            stop.line.about,
            stop.line.sql,
            indented(&answer)
        );
        problems.extend(verdict.err().map(|problem| format!("{}: {problem}", stop.line.sql)));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// What psql printed, and the servers that answered or what is wrong with them.
async fn visit(psql: &Path, url: &str, shop: &Shop, stop: &Stop) -> (String, Result<String, String>) {
    let deadline = Instant::now() + FRESH_TIMEOUT;
    loop {
        let output = match run_psql(psql, url, stop.line.sql).await {
            Ok(it) => it,
            Err(error) => return (String::new(), Err(format!("cannot run {}: {error}", psql.display()))),
        };
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return (answer, Err(error));
        }
        let ports = ports(&answer);
        let verdict = check(shop, stop, &ports);
        // Another row for every attempt at a write is no way to find out.
        let again = stop.decision.role == Role::Replica && Instant::now() < deadline;
        if verdict.is_ok() || !again {
            return (answer, verdict);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn run_psql(psql: &Path, url: &str, sql: &str) -> io::Result<Output> {
    let mut command = tokio::process::Command::new(psql);
    command.args(["--no-psqlrc", "--pset=pager=off", url, "--command", sql]);
    command.stdin(Stdio::null()).kill_on_drop(true).output().await
}

/// The first column of each row of psql's table.
fn ports(answer: &str) -> Vec<u16> {
    answer.lines().filter_map(|line| line.split_once('|')?.0.trim().parse().ok()).collect()
}

fn check(shop: &Shop, stop: &Stop, ports: &[u16]) -> Result<String, String> {
    let wanted = match stop.line.rows {
        Rows::Exactly(it) => it,
        Rows::Dutch => dutch_users() as usize,
    };
    if ports.len() != wanted {
        return Err(format!("{} rows, not {wanted}", ports.len()));
    }
    let mut named = BTreeSet::new();
    for port in ports {
        let (index, shard, server) = shop
            .shards
            .iter()
            .enumerate()
            .flat_map(|(index, shard)| shard.servers().map(move |it| (index, shard, it)))
            .find(|it| it.2.port() == *port)
            .ok_or_else(|| format!("no server of ours has port {port}"))?;
        if !stop.decision.shards.iter().any(|it| usize::from(it.0) == index) {
            return Err(format!("shard {} answered", shard.name));
        }
        let role = if *port == shard.primary.port() { Role::Primary } else { Role::Replica };
        // Without replicas the primary takes the reads too.
        if role != stop.decision.role && !shard.replicas.is_empty() {
            return Err(format!("{} answered, a {}", server.name(), role.label()));
        }
        named.insert(format!("{} (port {port})", server.name()));
    }
    Ok(named.into_iter().collect::<Vec<_>>().join(" and "))
}

fn indented(text: &str) -> String {
    text.lines().filter(|it| !it.is_empty()).map(|it| format!("    {it}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_psqls_table() {
        let answer = " server_port | name    \n-------------+---------\n 31234       | user 42\n(1 row)\n\n";
        assert_eq!(ports(answer), [31_234]);
        assert_eq!(ports("INSERT 0 1\n"), [0u16; 0]);
    }
}

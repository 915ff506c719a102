//! Four servers; on each a shard of each database, and on the first what each is compared with.

use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::try_join_all;
use keyway::demo::postgres::{Shard, WorkDir};
use keyway::demo::shop;
use tokio_postgres::Client;

use super::answer::{Answer, Case, Way, ask};
use super::report::Verdict;
use super::{Fallible, STATEMENTS};
use crate::harness::wire::{Wire, query};
use crate::harness::{APP_PASSWORD, KeywayProcess, Shared, cluster_options, connect, rows, until};

const SIZES: [usize; 3] = [1, 2, 4];

/// Table, map, key.
const SHARDED: [(&str, &str, &str); 12] = [
    ("users", "by_user", "user_id"),
    ("orders", "by_user", "user_id"),
    ("items", "by_user", "user_id"),
    ("events", "by_time", "occurred_at"),
    ("pgbench_accounts", "by_account", "aid"),
    ("pgbench_history", "by_account", "aid"),
    ("pgbench_branches", "by_branch", "bid"),
    ("pgbench_tellers", "by_branch", "bid"),
    ("tenants", "by_tenant", "tenant_id"),
    ("projects", "by_tenant", "tenant_id"),
    ("tasks", "by_tenant", "tenant_id"),
    ("t", "by_row", "id"),
];
const REFERENCES: [&str; 2] = ["countries", "plans"];
const HASH_MAPS: [(&str, &str); 5] = [
    ("by_user", "bigint"),
    ("by_account", "integer"),
    ("by_branch", "integer"),
    ("by_tenant", "uuid"),
    ("by_row", "bigint"),
];
/// Ends of the ranges of `by_time`, one less than shards.
const BOUNDS: [&str; 3] = ["2026-01-01T00:00:00Z", "2026-01-10T00:00:00Z", "2026-01-25T12:00:00Z"];

/// Keyway ends first, then the servers, then their directory.
pub struct Cluster {
    keyway: KeywayProcess,
    pub pairs: Vec<Pair>,
    _shards: Vec<Shard>,
    _dir: WorkDir,
}

/// A database of some shards, and the same rows in one.
pub struct Pair {
    shards: usize,
    through: SocketAddr,
    whole: SocketAddr,
    /// Of each shard, then of the whole.
    direct: Vec<Client>,
}

impl Cluster {
    pub async fn start(harness: &Shared) -> Fallible<Cluster> {
        let dir = harness.fresh_dir()?;
        let count = SIZES[SIZES.len() - 1];
        let names: Vec<String> = (1..=count).map(|it| format!("d{it}")).collect();
        let options = cluster_options();
        let start = |name| Shard::start(harness.installation(), dir.path(), name, 0, &options);
        let shards = try_join_all(names.iter().map(|it| start(it))).await?;
        let addresses: Vec<String> = shards.iter().map(|it| it.primary.address()).collect();
        for shard in &shards {
            // Brings the role along.
            shard.primary.create_database(shop::USER, shop::USER, APP_PASSWORD).await?;
        }
        for size in SIZES {
            for shard in &shards[..size] {
                make_database(shard, &format!("split{size}")).await?;
            }
            make_database(&shards[0], &format!("whole{size}")).await?;
        }
        let keyway = harness.start_keyway(|listen, admin| config_text(&addresses, listen, admin)).await?;
        let mut pairs = Vec::new();
        for size in SIZES {
            pairs.push(pair(size, &shards, &keyway).await?);
        }
        let cluster = Cluster { keyway, pairs, _shards: shards, _dir: dir };
        for pair in &cluster.pairs {
            cluster.fill(pair).await?;
        }
        cluster.is_known().await?;
        Ok(cluster)
    }

    /// Of every database the catalog: without it texts are not merged.
    async fn is_known(&self) -> Fallible<()> {
        until("the catalogs are known", || async {
            let metrics = self.keyway.metrics().await?;
            let known = metrics.lines().filter(|it| it.starts_with("keyway_catalog_known{"));
            Ok(known.filter(|it| it.ends_with(" 1")).count() == SIZES.len())
        })
        .await
    }

    /// The whole first; then each row through Keyway, which puts it where it belongs.
    async fn fill(&self, pair: &Pair) -> Fallible<()> {
        let whole = &pair.direct[pair.shards];
        whole.batch_execute(&read("rows.sql")?).await?;
        let url = self.keyway.url(shop::USER, APP_PASSWORD, &pair.name());
        let client = &connect(&url).await?;
        for table in tables() {
            let columns = "SELECT quote_ident(attname) FROM pg_attribute \
                WHERE attrelid = '{}'::regclass AND attnum > 0 ORDER BY attnum";
            let names = rows(whole, &columns.replace("{}", table)).await?;
            let values: Vec<_> = names.iter().map(|it| format!("quote_nullable({it}::text)")).collect();
            let (names, values) = (names.join(", "), values.join(" || ', ' || "));
            let made =
                format!("SELECT 'INSERT INTO {table} ({names}) VALUES (' || {values} || ')' FROM {table}");
            let inserts = rows(whole, &made).await?;
            try_join_all(inserts.iter().map(|it| client.batch_execute(it))).await?;
        }
        match self.difference_of_rows(pair).await? {
            None => Ok(()),
            Some(difference) => Err(format!("{}: {difference}", pair.name()).into()),
        }
    }

    /// What the shards hold between them against the whole; a reference table whole on each.
    pub async fn difference_of_rows(&self, pair: &Pair) -> Fallible<Option<String>> {
        let sum = |it: &str| {
            format!(
                "SELECT '{it}', count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {it} t"
            )
        };
        let sharded = SHARDED.iter().map(|it| sum(it.0)).collect::<Vec<_>>().join(" UNION ALL ");
        let copies = REFERENCES.iter().map(|it| sum(it)).collect::<Vec<_>>().join(" UNION ALL ");
        let (shards, whole) = (&pair.direct[..pair.shards], &pair.direct[pair.shards]);
        let want = rows(whole, &format!("SELECT * FROM ({copies}) c ORDER BY 1")).await?;
        for shard in shards {
            let got = rows(shard, &format!("SELECT * FROM ({copies}) c ORDER BY 1")).await?;
            if got != want {
                return Ok(Some(format!("copies of reference tables: want {want:?}, got {got:?}")));
            }
        }
        let want = sums(&[whole], &sharded).await?;
        let got = sums(&shards.iter().collect::<Vec<_>>(), &sharded).await?;
        Ok((want != got).then(|| format!("rows of sharded tables: want {want:?}, got {got:?}")))
    }
}

/// Count and sum of each table, added up over `clients`.
async fn sums(clients: &[&Client], sql: &str) -> Fallible<Vec<(String, i128, i128)>> {
    let mut sums: Vec<(String, i128, i128)> = SHARDED.iter().map(|it| (it.0.to_owned(), 0, 0)).collect();
    for client in clients {
        for row in rows(client, sql).await? {
            let mut fields = row.split('|');
            let mut field = || fields.next().ok_or("a short row");
            let (table, count, sum) = (field()?, field()?.parse::<i128>()?, field()?.parse::<i128>()?);
            let known = sums.iter_mut().find(|it| it.0 == table).ok_or("another table")?;
            known.1 += count;
            known.2 += sum;
        }
    }
    Ok(sums)
}

impl Pair {
    pub fn name(&self) -> String {
        format!("split{}", self.shards)
    }

    pub async fn sessions(&self) -> Fallible<Sessions> {
        let whole = format!("whole{}", self.shards);
        let log_in = async |address, name: &str| {
            let mut wire = Wire::log_in(address, shop::USER, APP_PASSWORD, name, &[]).await?;
            wire.ask(&query("SET TIME ZONE 'UTC'"), 1).await?;
            Fallible::Ok(wire)
        };
        Ok(Sessions {
            through: log_in(self.through, &self.name()).await?,
            whole: log_in(self.whole, &whole).await?,
        })
    }
}

/// One client of Keyway and one of PostgreSQL.
pub struct Sessions {
    through: Wire,
    whole: Wire,
}

impl Sessions {
    /// Also whether the sessions have to be made anew.
    pub async fn compare(&mut self, case: &Case) -> Fallible<(Verdict, bool)> {
        if case.writes() || case.steps.len() > 1 {
            return self.compare_once(case, Way::Simple).await;
        }
        for way in [Way::Simple, Way::Extended { binary: false }, Way::Extended { binary: true }] {
            let (verdict, lost) = self.compare_once(case, way).await?;
            if verdict != Verdict::Answered || lost {
                return Ok((verdict, lost));
            }
        }
        Ok((Verdict::Answered, false))
    }

    /// Keyway is asked first: what it refuses must change nothing on the other side either.
    async fn compare_once(&mut self, case: &Case, way: Way) -> Fallible<(Verdict, bool)> {
        let mut got = Vec::new();
        for step in &case.steps {
            match ask(&mut self.through, step, way).await {
                Ok(it) => got.push(it),
                Err(error) => return Ok((Verdict::Different(format!("  connection lost: {error}")), true)),
            }
        }
        let refusal = got.iter().find(|it| it.error.as_deref() == Some("0A000"));
        if refusal.is_some() {
            return self.compare_refused(case, way, &got).await;
        }
        for (step, got) in case.steps.iter().zip(&got) {
            let want = ask(&mut self.whole, step, way).await?;
            if want.differs(got) {
                let (want, got) = (want.shown(), got.shown());
                let how = format!("  {way:?}: {}\n  want {want}\n  got  {got}", step.sql);
                return Ok((Verdict::Different(how), case.steps.len() > 1));
            }
        }
        let failed = got.iter().any(|it| it.error.is_some());
        Ok((if failed { Verdict::Failed } else { Verdict::Answered }, false))
    }

    /// It is a refusal only where PostgreSQL would have had an answer.
    async fn compare_refused(&mut self, case: &Case, way: Way, got: &[Answer]) -> Fallible<(Verdict, bool)> {
        let several = case.steps.len() > 1;
        let refused = got.iter().find(|it| it.error.as_deref() == Some("0A000"));
        let message = refused.map(|it| it.message.clone()).unwrap_or_default();
        if !several {
            self.whole.ask(&query("BEGIN"), 1).await?;
            let want = ask(&mut self.whole, &case.steps[0], way).await?;
            self.whole.ask(&query("ROLLBACK"), 1).await?;
            if want.error.as_deref() == Some("0A000") {
                return Ok((Verdict::Failed, false));
            }
        }
        Ok((Verdict::Refused(generalised(&message)), several))
    }
}

/// Reasons are grouped: names in quotes do not matter.
fn generalised(message: &str) -> String {
    let parts = message.split('"').enumerate();
    parts.map(|(index, it)| if index % 2 == 1 { "..." } else { it }).collect::<Vec<_>>().join("\"")
}

async fn pair(size: usize, shards: &[Shard], keyway: &KeywayProcess) -> Fallible<Pair> {
    let mut direct = Vec::new();
    for shard in &shards[..size] {
        direct.push(as_owner(shard, &format!("split{size}")).await?);
    }
    direct.push(as_owner(&shards[0], &format!("whole{size}")).await?);
    Ok(Pair { shards: size, through: keyway.listen(), whole: shards[0].primary.address().parse()?, direct })
}

async fn as_owner(shard: &Shard, database: &str) -> Fallible<Client> {
    let address = shard.primary.address();
    connect(&format!("postgresql://{}:{APP_PASSWORD}@{address}/{database}", shop::USER)).await
}

async fn make_database(shard: &Shard, name: &str) -> Fallible<()> {
    let create = format!("CREATE DATABASE {name} OWNER {}", shop::USER);
    shard.primary.connect("postgres").await?.batch_execute(&create).await?;
    Ok(as_owner(shard, name).await?.batch_execute(&read("schema.sql")?).await?)
}

fn read(file: &str) -> Fallible<String> {
    Ok(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(STATEMENTS).join(file))?)
}

fn tables() -> impl Iterator<Item = &'static str> {
    REFERENCES.into_iter().chain(SHARDED.iter().map(|it| it.0))
}

fn config_text(addresses: &[String], listen: &str, admin: &str) -> String {
    let user = shop::USER;
    let mut text = format!(
        "listen = \"{listen}\"\nadmin = \"{admin}\"\n[limits]\nshutdown_timeout = \"2s\"\n\
         [users.{user}]\npassword = \"{APP_PASSWORD}\"\n"
    );
    for size in SIZES {
        text.push_str(&format!("[databases.split{size}]\ncross_shard_writes = \"one_phase\"\n"));
        let mut ranges = String::new();
        for (index, address) in addresses[..size].iter().enumerate() {
            text.push_str(&format!("[databases.split{size}.shards.s{index}]\nservers = [\"{address}\"]\n"));
            let from = if index > 0 { format!("from = \"{}\", ", BOUNDS[index - 1]) } else { String::new() };
            let to = if index + 1 < size { format!("to = \"{}\", ", BOUNDS[index]) } else { String::new() };
            ranges.push_str(&format!("{{ {from}{to}shard = \"s{index}\" }},\n"));
        }
        for (map, kind) in HASH_MAPS {
            text.push_str(&format!(
                "[databases.split{size}.maps.{map}]\nkind = \"hash\"\ntype = \"{kind}\"\n"
            ));
        }
        text.push_str(&format!(
            "[databases.split{size}.maps.by_time]\nkind = \"range\"\ntype = \"timestamptz\"\nranges = [\n{ranges}]\n"
        ));
        for (table, map, key) in SHARDED {
            text.push_str(&format!(
                "[databases.split{size}.tables.{table}]\nmap = \"{map}\"\nkey = \"{key}\"\n"
            ));
        }
        for table in REFERENCES {
            text.push_str(&format!("[databases.split{size}.tables.{table}]\nreference = true\n"));
        }
    }
    text
}

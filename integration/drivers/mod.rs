//! Foreign clients, each with nothing but the connection string: psql, pgbench, psycopg, asyncpg,
//! node-postgres, tokio-postgres; before the sharded shop and before an unsharded database.

mod native;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use keyway::demo::shop;
use libtest_mimic::Trial;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared};

/// Nothing here takes more than a few seconds; a driver that hangs must not hang the suite.
const END_TIMEOUT: Duration = Duration::from_secs(120);

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    let mut tests = vec![
        harness.test("drivers::psycopg", |it| script(it, Language::Python, "with_psycopg.py", 400)),
        harness.test("drivers::asyncpg", |it| script(it, Language::Python, "with_asyncpg.py", 600)),
        harness.test("drivers::node_postgres", |it| script(it, Language::Node, "with_pg.js", 150)),
        harness.test("drivers::psql_plain", psql_plain),
        harness.test("drivers::psql_sharded", psql_sharded),
        harness.test("drivers::pgbench_tpcb_like", pgbench_tpcb_like),
    ];
    for mode in ["simple", "extended", "prepared"] {
        let name = format!("drivers::pgbench_{mode}");
        tests.push(harness.test(&name, move |it| pgbench_on_both(it, mode)));
    }
    tests.extend(native::tests(harness));
    tests
}

enum Language {
    Python,
    Node,
}

/// Runs a script of this directory on both databases. It says how many checks it made, so that one that
/// does nothing does not pass.
async fn script(harness: Arc<Shared>, language: Language, name: &str, checks_min: u32) -> Outcome {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/drivers");
    let program = match language {
        Language::Python => dir.join(".venv/bin/python"),
        Language::Node => PathBuf::from("node"),
    };
    let installed = dir.join(if matches!(language, Language::Python) { ".venv" } else { "node_modules" });
    if !installed.join(".installed-from").is_file() {
        return Err("the drivers are not installed: run integration/drivers/install.sh".into());
    }
    let (sharded, plain) = (harness.shop().await?.url(), harness.single().await?.url());
    let mut command = Command::new(program);
    command.arg(dir.join(name)).args([sharded, plain]);
    let said = run(command, "").await?;
    let count = said.lines().last().and_then(|it| it.strip_suffix(" checks")).ok_or("no count of checks")?;
    let count: u32 = count.parse()?;
    assert!(count >= checks_min, "{count} checks, at least {checks_min} expected");
    Ok(())
}

/// What a program that must succeed says on standard output.
async fn run(command: Command, input: &str) -> Fallible<String> {
    let (ok, said, told) = run_any(command, input).await?;
    if ok { Ok(said) } else { Err(format!("{said}\n{told}").into()) }
}

/// Success, standard output, standard error.
async fn run_any(mut command: Command, input: &str) -> Fallible<(bool, String, String)> {
    use tokio::io::AsyncWriteExt;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env("LC_ALL", "C.UTF-8").env("PGTZ", "UTC");
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = timeout(END_TIMEOUT, child.wait_with_output()).await??;
    let text = |it: Vec<u8>| String::from_utf8_lossy(&it).into_owned();
    Ok((output.status.success(), text(output.stdout), text(output.stderr)))
}

fn psql(harness: &Shared, url: &str) -> Fallible<Command> {
    let mut command = Command::new(harness.installation().client_program("psql")?);
    command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", url]);
    Ok(command)
}

/// With headers and footers, as a person sees it.
fn psql_aligned(harness: &Shared, url: &str) -> Fallible<Command> {
    let mut command = Command::new(harness.installation().client_program("psql")?);
    command.args(["-X", "-v", "ON_ERROR_STOP=1", url]);
    Ok(command)
}

async fn psql_plain(harness: Arc<Shared>) -> Outcome {
    let url = harness.single().await?.url();
    let dir = harness.fresh_dir()?;
    let file = dir.path().join("rows.csv");
    let script = format!(
        "CREATE TABLE drv_psql (id int PRIMARY KEY, t text);\n\
         INSERT INTO drv_psql SELECT n, 'row ' || n FROM generate_series(1, 5) n;\n\
         \\timing on\nSELECT count(*) FROM drv_psql;\n\\timing off\n\
         \\copy drv_psql TO '{0}' CSV\n\
         BEGIN; SAVEPOINT a; DELETE FROM drv_psql; ROLLBACK TO a; COMMIT;\n\
         DELETE FROM drv_psql;\n\\copy drv_psql FROM '{0}' CSV\n\
         SELECT string_agg(t, ',' ORDER BY id) FROM drv_psql;\n\
         SELECT 'first' \\; SELECT 'second';\n",
        file.display()
    );
    let said = run(psql(&harness, &url)?, &script).await?;
    assert!(said.contains("row 1,row 2,row 3,row 4,row 5"), "{said}");
    assert!(said.contains("first\nsecond") && said.contains("Time: "), "{said}");

    let described =
        run(psql_aligned(&harness, &url)?, "\\d drv_psql\n\\dt drv_psql\n\\l\n\\du\n\\df lower\n").await?;
    assert!(described.contains("drv_psql_pkey") && described.contains("table"), "{described}");

    let mut single = psql(&harness, &url)?;
    single.args(["--single-transaction", "-c", "INSERT INTO drv_psql VALUES (6)", "-c", "SELECT 1 / 0"]);
    let (ok, _, told) = run_any(single, "").await?;
    assert!(!ok && told.contains("division by zero"), "{told}");

    let (ok, _, told) = run_any(psql(&harness, &url)?, "SELECT 1 +;\n").await?;
    assert!(!ok && told.contains("LINE 1: SELECT 1 +;") && told.contains('^'), "{told}");
    let left = run(psql(&harness, &url)?, "SELECT max(id) FROM drv_psql;\nDROP TABLE drv_psql;\n").await?;
    assert!(left.contains("5\n"), "a failed single transaction left a row: {left}");
    Ok(())
}

async fn psql_sharded(harness: Arc<Shared>) -> Outcome {
    let url = harness.shop().await?.url();
    let script = "SELECT user_id FROM users WHERE user_id = 42;\n\
                  SELECT user_id FROM users WHERE user_id IN (1, 2, 3, 4, 5, 6);\n\
                  BEGIN READ ONLY; SELECT name FROM users WHERE user_id = 7; COMMIT;\n";
    let said = run(psql(&harness, &url)?, script).await?;
    assert!(said.contains("user 7\n"), "{said}");
    let mut keys: Vec<&str> = said.lines().skip(1).take(6).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["1", "2", "3", "4", "5", "6"]);
    let described = run(psql_aligned(&harness, &url)?, "\\d users\n\\dt\n\\l\n\\dn\n").await?;
    assert!(described.contains("users_pkey") && described.contains("countries"), "{described}");

    let (ok, _, told) = run_any(psql(&harness, &url)?, "SELECT * FROM users ORDER BY name;\n").await?;
    assert!(!ok && told.contains("ERROR:  ORDER BY") && told.contains("HINT:  "), "{told}");
    let (ok, _, told) = run_any(psql(&harness, &url)?, "SELECT FROM WHERE;\n").await?;
    assert!(!ok && told.contains("syntax error") && told.contains("LINE 1: SELECT FROM WHERE;"), "{told}");
    Ok(())
}

/// pgbench's own arguments for a database behind Keyway.
async fn pgbench(harness: &Shared, url: &str, arguments: &[&str]) -> Fallible<String> {
    let (address, dbname) = url
        .rsplit_once('@')
        .and_then(|(_, it)| it.split_once('/'))
        .ok_or("a connection string without an address")?;
    let (host, port) = address.rsplit_once(':').ok_or("an address without a port")?;
    let mut command = Command::new(harness.installation().client_program("pgbench")?);
    command.env("PGPASSWORD", APP_PASSWORD).args(["-h", host, "-p", port, "-U", shop::USER]);
    command.args(arguments).arg(dbname);
    run(command, "").await
}

fn assert_processed(said: &str, transactions: u32) {
    let all = format!("number of transactions actually processed: {transactions}/{transactions}\n");
    assert!(said.contains(&all), "{said}");
    assert!(!said.contains("failed transactions: ") || said.contains("failed transactions: 0 "), "{said}");
}

/// One statement of each kind that a shard can answer, by its key.
async fn pgbench_on_both(harness: Arc<Shared>, mode: &str) -> Outcome {
    let (sharded, plain) = (harness.shop().await?.url(), harness.single().await?.url());
    let dir = harness.fresh_dir()?;
    let file = dir.path().join("shop.sql");
    std::fs::write(
        &file,
        format!(
            "\\set key random(940000, 949999)\n\\set known random(1, {})\n\
             SELECT name FROM users WHERE user_id = :known;\n\
             BEGIN;\nINSERT INTO orders (user_id, amount) VALUES (:key, 1.5);\n\
             UPDATE orders SET amount = amount + 1 WHERE user_id = :key;\nEND;\n\
             SELECT order_id FROM orders WHERE user_id = :key ORDER BY order_id LIMIT 1;\n\
             DELETE FROM orders WHERE user_id = :key;\n",
            shop::USERS
        ),
    )?;
    let file = file.to_string_lossy();
    let common = ["-n", "-M", mode, "-c", "8", "-j", "2", "-t", "50"];
    let said = pgbench(&harness, &sharded, &[&common[..], &["-f", &file]].concat()).await?;
    assert_processed(&said, 400);

    let file = dir.path().join("plain.sql");
    std::fs::write(&file, "\\set n random(1, 1000)\nSELECT :n + 1;\nSELECT current_setting('work_mem');\n")?;
    let file = file.to_string_lossy();
    let said = pgbench(&harness, &plain, &[&common[..], &["-f", &file]].concat()).await?;
    assert_processed(&said, 400);
    Ok(())
}

/// pgbench makes its tables with COPY and runs its own scripts, in one test, because they share the tables.
async fn pgbench_tpcb_like(harness: Arc<Shared>) -> Outcome {
    let url = harness.single().await?.url();
    pgbench(&harness, &url, &["-i", "-q", "-s", "1"]).await?;
    for mode in ["simple", "extended", "prepared"] {
        let said = pgbench(&harness, &url, &["-M", mode, "-c", "8", "-j", "2", "-t", "20"]).await?;
        assert_processed(&said, 160);
        let said = pgbench(&harness, &url, &["-n", "-S", "-M", mode, "-c", "8", "-t", "50"]).await?;
        assert_processed(&said, 400);
    }
    // The history is emptied at each start; balances stay and have to agree.
    let balances = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers), \
                    (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers);\n";
    let said = run(psql(&harness, &url)?, balances).await?;
    assert_eq!(said.trim(), "t|t");
    pgbench(&harness, &url, &["-i", "-I", "d"]).await?;
    Ok(())
}

//! psql as people type it, and as its own server would have answered.

use std::sync::Arc;

use libtest_mimic::Trial;
use tokio::process::Command;

use super::{finish, run};
use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture};
use keyway::demo::postgres::{Server, Signal};
use keyway::demo::shop;
use rustix::process::{Pid, kill_process};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("drivers::psql_describes_an_unsharded_database", describes_an_unsharded_database),
        harness.test("drivers::psql_describes_a_sharded_database", describes_a_sharded_database),
        harness.test("drivers::psql_runs_texts_and_files", runs_texts_and_files),
        harness.test("drivers::psql_runs_texts_and_files_on_shards", runs_texts_and_files_on_shards),
        harness.test("drivers::psql_copies", copies),
        harness.test("drivers::psql_shows_errors_as_the_server_does", shows_errors_as_the_server_does),
        harness.test("drivers::psql_shows_refusals_and_goes_on", shows_refusals_and_goes_on),
        harness.test("drivers::psql_cancels_on_ctrl_c", cancels_on_ctrl_c),
        harness.test("drivers::psql_watches", watches),
        harness.test("drivers::psql_listens", listens),
    ]
}

/// psql with nothing of the user's own, unaligned, without headers.
fn psql(harness: &Shared, url: &str, arguments: &[&str]) -> Fallible<Command> {
    let mut command = Command::new(harness.installation().client_program("psql")?);
    command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", url]).args(arguments);
    Ok(command)
}

async fn said(harness: &Shared, url: &str, arguments: &[&str]) -> Fallible<String> {
    run(&mut psql(harness, url, arguments)?).await
}

/// The connection string of the application for one server itself.
fn direct(server: &Server, dbname: &str) -> String {
    format!("postgresql://{}:{APP_PASSWORD}@{}/{dbname}", shop::USER, server.address())
}

async fn describes_an_unsharded_database(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let table = "CREATE TABLE psql_described (id bigint PRIMARY KEY, name text NOT NULL DEFAULT 'x', \
                 CHECK (id > 0))";
    said(&harness, &fixture.url(), &["-c", table, "-c", "COMMENT ON TABLE psql_described IS 'ours'"]).await?;
    describes(
        &harness,
        &fixture.url(),
        &direct(&fixture.shard.primary, SingleFixture::DATABASE),
        "psql_described",
    )
    .await
}

async fn describes_a_sharded_database(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.shop().await?;
    let server = direct(&fixture.shop.shards[0].primary, shop::DATABASE);
    describes(&harness, &fixture.url(), &server, "users").await
}

/// Every question is several queries of the catalog; the schema is the same on every shard.
async fn describes(harness: &Shared, url: &str, server: &str, table: &str) -> Outcome {
    let (describe, describe_more) = (format!("\\d {table}"), format!("\\d+ {table}"));
    let questions: [&str; 14] = [
        &describe,
        &describe_more,
        "\\dt pg_catalog.pg_am",
        "\\dn",
        "\\du",
        "\\df pg_catalog.lower",
        "\\dT pg_catalog.int8",
        "\\do pg_catalog.=",
        "\\dx",
        "\\dp countries",
        "\\l postgres",
        "\\sf pg_catalog.lower(text)",
        "\\encoding",
        "\\dconfig work_mem",
    ];
    for question in questions {
        let asked = ["-c", question];
        let ours = answer(harness, url, &asked).await?;
        let theirs = answer(harness, server, &asked).await?;
        assert!(!theirs.1.is_empty() || question == "\\dp countries", "{question} asks nothing");
        assert_eq!(ours, theirs, "{question}");
    }
    // These list what other tests create meanwhile.
    for question in ["\\d", "\\dt"] {
        let listed = said(harness, url, &["-c", question]).await?;
        assert!(listed.contains(&format!("public|{table}|table|app\n")), "{question}: {listed}");
    }
    Ok(())
}

/// Status and words, whatever they are.
async fn answer(harness: &Shared, url: &str, arguments: &[&str]) -> Fallible<(Option<i32>, String)> {
    let (status, said) = finish(&mut psql(harness, url, arguments)?).await?;
    Ok((status.code(), said))
}

async fn runs_texts_and_files(harness: Arc<Shared>) -> Outcome {
    let url = harness.single().await?.url();
    let create =
        "CREATE TABLE psql_run (a int); INSERT INTO psql_run VALUES (1), (2); SELECT 'in', 'one text'";
    assert_eq!(said(&harness, &url, &["-c", create]).await?, "in|one text\n");
    // One text is one transaction, unless it says otherwise.
    let failing = ["-c", "INSERT INTO psql_run VALUES (3); SELECT 1/0"];
    assert_eq!(answer(&harness, &url, &failing).await?, (Some(1), "ERROR:  division by zero\n".into()));
    let count = ["-c", "BEGIN; SELECT count(*) FROM psql_run; COMMIT"];
    assert_eq!(said(&harness, &url, &count).await?, "2\n");

    let timed = said(&harness, &url, &["-c", "\\timing on", "-c", "SELECT 1"]).await?;
    assert!(timed.starts_with("1\nTime: ") && timed.ends_with(" ms\n"), "{timed}");
    let fetched = "SELECT a FROM generate_series(1, 1000) a";
    let fetched = said(&harness, &url, &["-v", "FETCH_COUNT=7", "-c", fetched]).await?;
    assert_eq!(fetched.lines().count(), 1000, "a cursor behind a plain SELECT");

    let dir = harness.fresh_dir()?;
    let file = dir.path().join("run.sql");
    let file_name = file.to_str().ok_or("a path that is no text")?;
    let in_one = ["--single-transaction", "-v", "ON_ERROR_STOP=1", "-f", file_name];
    let good = "DELETE FROM psql_run;\n\\set n 5\nINSERT INTO psql_run VALUES (:n);\n\
                SELECT a AS got FROM psql_run \\gset\n\\echo got :got\n\
                SELECT 'CREATE TABLE psql_made (a int)' \\gexec\nSELECT 1 AS a, 'b' AS b \\gdesc\n";
    std::fs::write(&file, good)?;
    assert_eq!(said(&harness, &url, &in_one).await?, "got 5\na|integer\nb|text\n");
    std::fs::write(&file, "INSERT INTO psql_run VALUES (6);\nINSERT INTO psql_run\nVALUES (nothing);\n")?;
    let (code, words) = answer(&harness, &url, &in_one).await?;
    let want = format!(
        "psql:{file_name}:3: ERROR:  column \"nothing\" does not exist\nLINE 2: VALUES (nothing);\n                ^\n"
    );
    assert_eq!((code, words), (Some(3), want));
    assert_eq!(said(&harness, &url, &count).await?, "1\n");

    // psql sets a savepoint before each statement and goes back to it.
    std::fs::write(&file, "BEGIN;\nINSERT INTO psql_run VALUES (7);\nSELECT 1/0;\nCOMMIT;\n")?;
    let (_, words) = answer(&harness, &url, &["-v", "ON_ERROR_ROLLBACK=on", "-f", file_name]).await?;
    assert_eq!(words, format!("psql:{file_name}:3: ERROR:  division by zero\n"));
    assert_eq!(said(&harness, &url, &count).await?, "2\n");
    Ok(())
}

async fn runs_texts_and_files_on_shards(harness: Arc<Shared>) -> Outcome {
    let url = harness.shop().await?.url();
    let two = "INSERT INTO users (user_id, name, email, country) VALUES (5000001, 'psql', 'p', 'NL'); \
               SELECT name FROM users WHERE user_id = 5000001";
    assert_eq!(said(&harness, &url, &["-c", two]).await?, "psql\n");
    let dir = harness.fresh_dir()?;
    let file = dir.path().join("run.sql");
    let file_name = file.to_str().ok_or("a path that is no text")?;
    let in_one = ["--single-transaction", "-v", "ON_ERROR_STOP=1", "-f", file_name];
    let one_key = "SHOW transaction_read_only;\n\
                   INSERT INTO users (user_id, name, email, country) VALUES (5000002, 'psql', 'p', 'NL');\n\
                   UPDATE users SET name = 'file' WHERE user_id = 5000002;\n";
    std::fs::write(&file, one_key)?;
    assert_eq!(said(&harness, &url, &in_one).await?, "off\n");
    std::fs::write(&file, "UPDATE users SET name = 'lost' WHERE user_id = 5000002;\nSELECT 1/0;\n")?;
    let (code, words) = answer(&harness, &url, &in_one).await?;
    assert_eq!((code, words), (Some(3), format!("psql:{file_name}:2: ERROR:  division by zero\n")));
    let name = "BEGIN; SELECT name FROM users WHERE user_id = 5000002; COMMIT";
    assert_eq!(said(&harness, &url, &["-c", name]).await?, "file\n");
    let copied = "\\copy (SELECT name FROM users WHERE user_id = 42) TO STDOUT";
    assert_eq!(said(&harness, &url, &["-c", copied]).await?, "user 42\n");
    let reference = "UPDATE countries SET name = name WHERE code = 'KE' RETURNING name";
    assert_eq!(said(&harness, &url, &["-c", reference]).await?, "Kenya\n");
    Ok(())
}

async fn copies(harness: Arc<Shared>) -> Outcome {
    let url = harness.single().await?.url();
    let dir = harness.fresh_dir()?;
    let (from, to) = (dir.path().join("from.csv"), dir.path().join("to.csv"));
    let rows: String = (0..50_000).map(|it| format!("{it},\"row \"\"{it}\"\"\"\n")).collect();
    std::fs::write(&from, &rows)?;
    let table = "CREATE TABLE psql_copied (id int PRIMARY KEY, name text)";
    let copy_in = format!("\\copy psql_copied FROM '{}' CSV", from.display());
    let copy_out =
        format!("\\copy (SELECT * FROM psql_copied ORDER BY id) TO '{}' CSV FORCE QUOTE name", to.display());
    said(&harness, &url, &["-c", table, "-c", &copy_in, "-c", &copy_out]).await?;
    assert!(std::fs::read_to_string(&to)? == rows, "what went in comes out");

    // The server objects at the second line of many; psql goes on with what follows.
    let (code, words) =
        answer(&harness, &url, &["-c", &copy_in, "-c", "SELECT count(*) FROM psql_copied"]).await?;
    let want = "ERROR:  duplicate key value violates unique constraint \"psql_copied_pkey\"\n\
                DETAIL:  Key (id)=(0) already exists.\nCONTEXT:  COPY psql_copied, line 1\n50000\n";
    assert_eq!((code, &words[..]), (Some(0), want));
    let inline = dir.path().join("inline.sql");
    std::fs::write(
        &inline,
        "TRUNCATE psql_copied;\nCOPY psql_copied FROM STDIN;\n7\tseven\n\\.\nTABLE psql_copied;\n",
    )?;
    let inline = inline.to_str().ok_or("a path that is no text")?;
    assert_eq!(said(&harness, &url, &["-f", inline]).await?, "7|seven\n");
    Ok(())
}

/// What is wrong with a statement wherever it runs.
const WRONG: [&str; 15] = [
    "SELECT 1 FORM x y",
    "SELECT\n  'naïve 鍵',\n  FORM x y",
    "SELEC 1",
    "SELECT 'open",
    "SELECT nothing",
    "SELECT nothing FROM users WHERE user_id = 1",
    "SELECT 1 FROM pg_nothing",
    "SELECT 1/0",
    "SELECT 'seven'::int",
    "SELECT 1; SELECT 2 FORM x y",
    "SET work_mem = 'much'",
    "SHOW nothing",
    "ROLLBACK TO nowhere",
    "BEGIN; SELECT 1/0; SELECT 1",
    "COMMIT",
];

/// What several shards refuse before they look at it closely.
const WRONG_ON_ONE: [&str; 5] = [
    "SELECT nothing(1)",
    "EXECUTE nothing",
    "FETCH 1 FROM nothing",
    "DROP TABLE pg_nothing",
    "INSERT INTO pg_nothing VALUES (1)",
];

async fn shows_errors_as_the_server_does(harness: Arc<Shared>) -> Outcome {
    let plain = harness.single().await?;
    let shop = harness.shop().await?;
    let on_plain = (plain.url(), direct(&plain.shard.primary, SingleFixture::DATABASE));
    let on_shop = (shop.url(), direct(&shop.shop.shards[0].primary, shop::DATABASE));
    let on_both = [&on_plain, &on_shop].into_iter().flat_map(|it| WRONG.map(|statement| (it, statement)));
    for ((ours, theirs), statement) in on_both.chain(WRONG_ON_ONE.map(|it| (&on_plain, it))) {
        let ours = answer(&harness, ours, &["-c", statement]).await?;
        let theirs = answer(&harness, theirs, &["-c", statement]).await?;
        assert_eq!(ours, theirs, "{statement}");
    }
    Ok(())
}

async fn shows_refusals_and_goes_on(harness: Arc<Shared>) -> Outcome {
    let url = harness.shop().await?.url();
    let asked = ["-c", "SELECT row_number() OVER () FROM users", "-c", "SELECT 'on'"];
    let (code, words) = answer(&harness, &url, &asked).await?;
    assert_eq!(code, Some(0), "{words}");
    let lines: Vec<_> = words.lines().collect();
    assert!(lines[0].starts_with("ERROR:  ") && lines[1].starts_with("HINT:  "), "{words}");
    assert_eq!(lines[2..], ["on"], "{words}");
    let verbose = ["-v", "VERBOSITY=sqlstate", "-c", "UPDATE users SET name = 'x'"];
    assert_eq!(answer(&harness, &url, &verbose).await?, (Some(1), "ERROR:  0A000\n".into()));
    Ok(())
}

async fn cancels_on_ctrl_c(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let sleep = "SELECT pg_sleep(60) /* psql_cancels */";
    let mut command = psql(&harness, &fixture.url(), &["-c", sleep, "-c", "SELECT 'never'"])?;
    let client = fixture.shard.primary.connect(SingleFixture::DATABASE).await?;
    let watch = async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active'";
        let all = fixture.shard.servers().map(|it| it.connect(SingleFixture::DATABASE));
        let mut clients = vec![client];
        for it in all {
            clients.push(it.await?);
        }
        loop {
            for it in &clients {
                if it.query_one(running, &[&sleep]).await?.get::<_, i64>(0) > 0 {
                    return Fallible::Ok(());
                }
            }
        }
    };
    let (pid, ended) = super::started(&mut command)?;
    tokio::pin!(ended);
    tokio::select! {
        ended = &mut ended => return Err(format!("psql ended before it was told to: {:?}", ended?).into()),
        watched = watch => watched?,
    }
    kill_process(Pid::from_raw(pid).ok_or("no pid")?, Signal::INT)?;
    let (_, words) = ended.await?;
    assert!(words.contains("canceling statement due to user request"), "{words}");
    Ok(())
}

/// psql repeats a query until it fails: here at the fifth value of a sequence.
async fn watches(harness: Arc<Shared>) -> Outcome {
    let url = harness.single().await?.url();
    said(&harness, &url, &["-c", "CREATE SEQUENCE psql_watched"]).await?;
    let dir = harness.fresh_dir()?;
    let file = dir.path().join("watch.sql");
    std::fs::write(
        &file,
        "SELECT 12 / (5 - nextval('psql_watched')) AS left \\watch 0.01\nSELECT 'afterwards';\n",
    )?;
    let file = file.to_str().ok_or("a path that is no text")?;
    let (_, words) = answer(&harness, &url, &["-f", file]).await?;
    // Each turn has the time above it.
    let values: Vec<&str> =
        words.lines().filter(|it| !it.is_empty() && !it.contains("every 0.01s")).collect();
    let want = ["3", "4", "6", "12"].into_iter();
    let error = format!("psql:{file}:1: ERROR:  division by zero");
    assert_eq!(values, want.chain([error.as_str(), "afterwards"]).collect::<Vec<_>>(), "{words}");
    said(&harness, &url, &["-c", "DROP SEQUENCE psql_watched"]).await?;
    Ok(())
}

/// psql tells of a notification behind the next answer.
async fn listens(harness: Arc<Shared>) -> Outcome {
    let url = harness.single().await?.url();
    let own = ["-c", "LISTEN psql_news", "-c", "NOTIFY psql_news, 'its own'", "-c", "SELECT 'told'"];
    let words = said(&harness, &url, &own).await?;
    let notification =
        "Asynchronous notification \"psql_news\" with payload \"its own\" received from server process";
    assert!(words.contains(notification) && words.contains("told\n"), "{words}");
    let silent =
        ["-c", "LISTEN psql_news", "-c", "UNLISTEN psql_news", "-c", "NOTIFY psql_news", "-c", "SELECT 1"];
    assert_eq!(said(&harness, &url, &silent).await?, "1\n");
    Ok(())
}

//! Towards servers: each `server_tls` before servers with TLS and without, good certificates and bad.

use std::path::Path;
use std::sync::Arc;

use keyway::demo::postgres::{Installation, Server, Shard, WorkDir};
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::process::Command;

use super::certificates::{Authority, Pair};
use super::clients::{Files, config, conninfo};
use super::{metric, python};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, as_db_error,
    assert_error, cluster_options, connect, rows, until,
};

const DATABASE: &str = SingleFixture::DATABASE;
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("tls::each_mode_meets_servers_with_tls_and_without", each_mode_meets_servers),
        harness.test("tls::certificates_of_servers_are_checked", certificates_of_servers),
        harness.test("tls::keyway_shows_servers_a_certificate", keyway_shows_a_certificate),
        harness.test("tls::everything_that_keyway_asks_itself_goes_over_tls", what_keyway_asks_itself),
        harness.test("tls::much_goes_through_tls_on_both_sides", much_goes_through),
        harness.test("tls::a_cancel_goes_the_way_of_its_connection", a_cancel_goes_the_same_way),
        harness.test("tls::replication_goes_over_tls_on_both_sides", replication),
        harness.test("tls::the_console_shows_it", the_console_shows_it),
        harness.test("tls::direct_tls_to_servers_of_postgresql_18", direct_to_servers),
    ]
}

/// A server with TLS. It ends before its directory does.
pub struct TlsServer {
    pub shard: Shard,
    dir: WorkDir,
    installation: Arc<Installation>,
}

impl TlsServer {
    /// Shows `pair` and verifies certificates of clients by `authority`.
    pub async fn start(
        harness: &Shared,
        installation: &Arc<Installation>,
        pair: &Pair,
        authority: &Authority,
    ) -> Fallible<TlsServer> {
        let (dir, mut options) = (harness.fresh_dir()?, cluster_options());
        let path = |name: &str| dir.path().join(name).display().to_string();
        write(installation, dir.path(), pair)?;
        installation.write_private_file(&dir.path().join("ca.crt"), authority.pem())?;
        let settings = [
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", path("server.crt")),
            ("ssl_key_file", path("server.key")),
            ("ssl_ca_file", path("ca.crt")),
        ];
        options.settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let shard = Shard::start(installation, dir.path(), "main", 0, &options).await?;
        shard.primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
        Ok(TlsServer { shard, dir, installation: installation.clone() })
    }

    pub fn server(&self) -> &Server {
        &self.shard.primary
    }

    /// Replaces the rule for everybody but superusers. The rules are in force when this returns.
    async fn allow(&self, rule: &str) -> Fallible<()> {
        let path = self.server().data_dir().join("pg_hba.conf");
        let text = format!("host all postgres 127.0.0.1/32 scram-sha-256\n{rule}\n");
        self.installation.write_private_file(&path, &text)?;
        self.reload().await
    }

    pub async fn show(&self, pair: &Pair) -> Fallible<()> {
        write(&self.installation, self.dir.path(), pair)?;
        self.reload().await
    }

    /// Every session starts with what the postmaster has, which has it when its log says so.
    async fn reload(&self) -> Fallible<()> {
        let log = || std::fs::read_to_string(self.server().log_path()).unwrap_or_default();
        let reloads = || log().matches("received SIGHUP, reloading configuration files").count();
        let before = reloads();
        self.server().query_text("SELECT pg_reload_conf()").await?;
        until("the postmaster has heard", async || Ok(reloads() > before)).await?;
        // It goes on to read its files before it takes the next connection.
        self.server().query_text("SELECT 1").await?;
        Ok(())
    }
}

fn write(installation: &Installation, dir: &Path, pair: &Pair) -> Fallible<()> {
    installation.write_private_file(&dir.join("server.crt"), &pair.cert)?;
    Ok(installation.write_private_file(&dir.join("server.key"), &pair.key)?)
}

/// Databases of the same server named after their modes, each with `more` lines.
fn one_for_each_mode(server: &Server, ca: &str, more: &str) -> impl Fn(&str, &str) -> String + use<> {
    let mut databases = String::new();
    for mode in MODES {
        let ca = if mode.starts_with("verify") { format!("server_ca = \"{ca}\"") } else { String::new() };
        databases += &format!(
            "[databases.{mode}]\ndbname = \"{DATABASE}\"\nservers = [\"{}\"]\nserver_tls = \"{mode}\"\n{ca}\n{more}\n\
             failover_hold = \"2s\"\n",
            server.address()
        );
    }
    move |listen, admin| {
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n{databases}"
        )
    }
}

/// Whether a session of each database has TLS behind it, or why there is none. The databases before
/// that need a server that probes see.
async fn found(keyway: &KeywayProcess) -> Fallible<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for mode in MODES {
        let url = keyway.url(USER, APP_PASSWORD, mode);
        let said = match connect(&url).await {
            Ok(client) => {
                let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                rows(&client, sql).await?.concat()
            }
            Err(error) => match error.downcast::<tokio_postgres::Error>() {
                Ok(error) => as_db_error(*error)?.detail().unwrap_or_default().to_owned(),
                Err(error) => return Err(error),
            },
        };
        found.push((mode, said));
    }
    Ok(found)
}

/// `wants` are a part of what is found for each mode.
async fn check(harness: &Shared, text: impl Fn(&str, &str) -> String, wants: [&str; 6]) -> Fallible<()> {
    let keyway = harness.start_keyway_unready(text).await?;
    for ((mode, found), want) in found(&keyway).await?.iter().zip(wants) {
        assert!(found.contains(want), "{mode}: {found}, not {want}");
    }
    Ok(())
}

async fn each_mode_meets_servers(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let ca = files.path("ca.crt");
    let without = &harness.single().await?.shard.primary;
    let no_tls = "server does not speak TLS";
    check(&harness, one_for_each_mode(without, &ca, ""), ["f", "f", "f", no_tls, no_tls, no_tls]).await?;
    let pair = files.authority.sign(&["127.0.0.1"], "server")?;
    let with = TlsServer::start(&harness, harness.installation(), &pair, &files.authority).await?;
    let text = || one_for_each_mode(with.server(), &ca, "");
    check(&harness, text(), ["f", "f", "t", "t", "t", "t"]).await?;
    // Where the server insists, `allow` comes again with TLS; where it will have none, `prefer` without.
    with.allow("hostssl all all 127.0.0.1/32 scram-sha-256").await?;
    let no_entry = "no pg_hba.conf entry";
    check(&harness, text(), [no_entry, "t", "t", "t", "t", "t"]).await?;
    with.allow("hostnossl all all 127.0.0.1/32 scram-sha-256").await?;
    check(&harness, text(), ["f", "f", "f", no_entry, no_entry, no_entry]).await.map_err(Into::into)
}

async fn certificates_of_servers(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let ca = files.path("ca.crt");
    let renamed = files.authority.sign(&["db.example.com"], "server")?;
    let server = TlsServer::start(&harness, harness.installation(), &renamed, &files.authority).await?;
    let text = || one_for_each_mode(server.server(), &ca, "");
    check(&harness, text(), ["f", "f", "t", "t", "t", "not valid for name"]).await?;
    server.show(&files.authority.sign(&[], "127.0.0.1")?).await?;
    check(&harness, text(), ["f", "f", "t", "t", "t", "t"]).await?;
    server.show(&files.authority.sign_expired(&["127.0.0.1"], "server")?).await?;
    check(&harness, text(), ["f", "f", "t", "t", "expired", "expired"]).await?;
    server.show(&Authority::new("another")?.sign(&["127.0.0.1"], "server")?).await?;
    check(&harness, text(), ["f", "f", "t", "t", "UnknownIssuer", "UnknownIssuer"]).await.map_err(Into::into)
}

async fn keyway_shows_a_certificate(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let pair = files.authority.sign(&["127.0.0.1"], "server")?;
    let server = TlsServer::start(&harness, harness.installation(), &pair, &files.authority).await?;
    server.allow("hostssl all all 127.0.0.1/32 cert").await?;
    let foreign = Authority::new("another")?;
    let mut config = one_for_each_mode(server.server(), &files.path("ca.crt"), "");
    let none = "connection requires a valid client certificate";
    check(&harness, &config, ["no pg_hba.conf entry", none, none, none, none, none]).await?;
    for (name, pair, want) in [
        ("app", files.authority.sign(&[], USER)?, "t"),
        ("other", files.authority.sign(&[], "somebody")?, "certificate authentication failed"),
        // Which word comes of the alert depends on when it comes.
        ("foreign", foreign.sign(&[], USER)?, ""),
    ] {
        let it = pair.write(files.dir.path(), name)?;
        let (cert, key) = (it.cert.display(), it.key.display());
        config = one_for_each_mode(
            server.server(),
            &files.path("ca.crt"),
            &format!("server_cert = \"{cert}\"\nserver_key = \"{key}\""),
        );
        if name == "foreign" {
            let keyway = harness.start_keyway_unready(&config).await?;
            let found = found(&keyway).await?;
            assert!(found.iter().all(|it| it.1 != "t"), "{found:?}");
        } else {
            check(&harness, &config, ["no pg_hba.conf entry", want, want, want, want, want]).await?;
        }
    }
    Ok(())
}

/// Database `plain` with TLS on both sides.
/// The console says what each connection has agreed on, on both sides.
async fn the_console_shows_it(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let server = start(&harness, &files).await?;
    let ca = files.path("ca.crt");
    let database = format!("server_tls = \"verify-full\"\nserver_ca = \"{ca}\"\n");
    let head = format!("stats_users = [\"{USER}\"]\n{}", files.section("allow", ""));
    let keyway = harness.start_keyway(config(&server.shard, &head, "", &database)).await?;
    let shown = |sslmode: &str, sql: &'static str| {
        let to = conninfo(&keyway, sslmode).replace(&format!("dbname={DATABASE}"), "dbname=keyway");
        let harness = harness.clone();
        async move { super::psql(&harness, &to, &[sql]).await }
    };
    super::psql(&harness, &conninfo(&keyway, "sslmode=require"), &["SELECT 1"]).await?;
    for sql in ["SHOW CLIENTS", "SHOW SERVERS"] {
        let said = shown("sslmode=require", sql).await?;
        assert!(said.ok && said.text.contains("|TLSv1.3/TLS_"), "{sql}: {}", said.text);
    }
    let said = shown("sslmode=disable", "SHOW CLIENTS").await?;
    assert!(said.ok && !said.text.contains("TLS"), "{}", said.text);
    Ok(())
}

async fn both_sides(
    harness: &Shared,
    files: &Files,
    server: &TlsServer,
    users: &str,
    database: &str,
) -> Fallible<KeywayProcess> {
    let ca = files.path("ca.crt");
    let database = format!("server_tls = \"verify-full\"\nserver_ca = \"{ca}\"\n{database}");
    harness.start_keyway(config(&server.shard, &files.section("require", ""), users, &database)).await
}

async fn start(harness: &Shared, files: &Files) -> Fallible<TlsServer> {
    let pair = files.authority.sign(&["127.0.0.1"], "server")?;
    let server = TlsServer::start(harness, harness.installation(), &pair, &files.authority).await?;
    server.allow("hostssl all all 127.0.0.1/32 scram-sha-256").await?;
    Ok(server)
}

/// Probes, `auth_query`, and a login that is passed on from a proof that was bound to another channel.
async fn what_keyway_asks_itself(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let server = start(&harness, &files).await?;
    let direct = server.server().connect(DATABASE).await?;
    direct
        .batch_execute(
            "CREATE ROLE found LOGIN PASSWORD 'pass';
             CREATE ROLE stored LOGIN PASSWORD 'pass';
             CREATE FUNCTION password_of(INOUT name text, OUT password text) RETURNS SETOF record
             LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
             AS 'SELECT usename, passwd FROM pg_shadow WHERE usename = name'",
        )
        .await?;
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'stored'";
    let verifier = server.server().query_text(verifier).await?.ok_or("no such role")?;
    let users = format!("[users.stored]\npassword = \"{verifier}\"\n");
    let database = format!("auth_user = \"{USER}\"\nauth_query = \"SELECT * FROM public.password_of($1)\"");
    let keyway = both_sides(&harness, &files, &server, &users, &database).await?;
    for user in ["found", "stored"] {
        let more = format!("sslmode=require channel_binding=require user={user} password=pass");
        let said = super::psql(&harness, &conninfo(&keyway, &more), &["SELECT current_user"]).await?;
        assert!(said.ok && said.text.contains(user), "{}", said.text);
    }
    let sql = "SELECT string_agg(DISTINCT application_name || ' ' || ssl, ', ' ORDER BY application_name || ' ' || ssl)
         FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name LIKE 'keyway %' AND pid <> pg_backend_pid()
         AND application_name <> 'keyway clusters'";
    until("probes and look-ups are there", async || {
        Ok(server.server().query_text(sql).await?.as_deref()
            == Some("keyway auth_query true, keyway probe true"))
    })
    .await
    .map_err(Into::into)
}

/// COPY both ways, a large result, a large statement, a server that talks while it is sent data. The last by a libpq
/// that blocks, which reads while it cannot write: psycopg's own COPY waits for room alone, and for ever if the server
/// waits for it to read.
const MUCH: &str = "
import psycopg, sys
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    connection.add_notice_handler(lambda it: None)
    connection.execute('CREATE TABLE much (id int, t text)')
    line = b'1234567\\t' + b'x' * 1000 + b'\\n'
    with connection.cursor().copy('COPY much FROM STDIN') as copy:
        for _ in range(400):
            copy.write(line * 50)
    with connection.cursor().copy('COPY much TO STDOUT') as copy:
        size = sum(len(it) for it in copy)
    rows = connection.execute('SELECT id, t FROM much').fetchall()
    big = connection.execute('SELECT %s::text', ['y' * 3_000_000]).fetchone()[0]
    connection.execute('''CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE '%', repeat('n', 8000); RETURN new; END $$''')
    connection.execute('CREATE TRIGGER talk BEFORE INSERT ON much FOR EACH ROW EXECUTE FUNCTION talk()')
    libpq = connection.pgconn
    libpq.nonblocking = 0
    assert libpq.exec_(b'COPY much FROM STDIN').status == psycopg.pq.ExecStatus.COPY_IN
    for _ in range(100):
        libpq.put_copy_data(line * 50)
    libpq.put_copy_end()
    while (result := libpq.get_result()) is not None:
        assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, result.error_message
    libpq.nonblocking = 1
    count = connection.execute('SELECT count(*) FROM much').fetchone()[0]
    print(size == 400 * 50 * len(line), len(rows), len(big), count)
";

async fn much_goes_through(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let server = start(&harness, &files).await?;
    let keyway = both_sides(&harness, &files, &server, "", "").await?;
    let said = python(MUCH, &[&conninfo(&keyway, "sslmode=require")]).await?;
    assert_eq!(said.text.trim(), "True 20000 3000000 25000");
    Ok(())
}

/// SQL over a logical connection, and all of a cluster over physical ones.
async fn replication(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let server = start(&harness, &files).await?;
    let rule = |of: &str| format!("hostssl {of} all 127.0.0.1/32 scram-sha-256");
    server.allow(&format!("{}\n{}", rule("all"), rule("replication"))).await?;
    server.server().query_text(&format!("ALTER ROLE {USER} REPLICATION")).await?;
    let keyway = both_sides(&harness, &files, &server, "", "").await?;
    let logical = conninfo(&keyway, "sslmode=require replication=database");
    let sql = "SELECT 'with TLS: ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let said = super::psql(&harness, &logical, &[sql, "IDENTIFY_SYSTEM"]).await?;
    assert!(said.ok && said.text.contains("with TLS: true"), "{}", said.text);
    let dir = harness.fresh_dir()?;
    let (to, installation) = (dir.path().join("backup"), harness.installation());
    let mut backup = Command::new(installation.client_program("pg_basebackup")?);
    backup.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--dbname"]);
    backup.arg(conninfo(&keyway, "sslmode=require")).arg("--pgdata").arg(&to);
    let said = super::run(backup).await?;
    assert!(said.ok, "{}", said.text);
    let mut verify = Command::new(installation.client_program("pg_verifybackup")?);
    verify.arg(&to);
    let said = super::run(verify).await?;
    assert!(said.ok, "{}", said.text);
    Ok(())
}

/// libpq of PostgreSQL 18 sends its cancel requests over TLS too.
const CANCEL: &str = "
import psycopg, sys, threading, time
with psycopg.connect(sys.argv[1], autocommit=True) as connection, psycopg.connect(sys.argv[1], autocommit=True) as other:
    def cancel():
        while not other.execute(\"SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'\").fetchone():
            time.sleep(0.02)
        connection.cancel_safe(timeout=30)
    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        connection.execute('SELECT pg_sleep(600)')
    except psycopg.errors.QueryCanceled:
        print('cancelled')
    thread.join()
    print(connection.execute('SELECT 1').fetchone())
";

async fn a_cancel_goes_the_same_way(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let server = start(&harness, &files).await?;
    let keyway = both_sides(&harness, &files, &server, "", "").await?;
    let handshakes = async |side: &str| {
        let name = format!("keyway_tls_handshakes_total{{result=\"ok\",side=\"{side}\"}}");
        Fallible::Ok(metric(&keyway.metrics().await?, &name) as u64)
    };
    // The pool has its connections, and the probe its own.
    let pooled = "sslmode=require";
    for _ in 0..2 {
        let said = python(CANCEL, &[&conninfo(&keyway, pooled)]).await?;
        assert_eq!(said.text.trim(), "cancelled\n(1,)");
    }
    let (clients, servers) = (handshakes("client").await?, handshakes("server").await?);
    let said = python(CANCEL, &[&conninfo(&keyway, pooled)]).await?;
    assert_eq!(said.text.trim(), "cancelled\n(1,)");
    assert_eq!(handshakes("client").await? - clients, 3, "two sessions and a cancel request");
    assert_eq!(handshakes("server").await? - servers, 1, "the cancel request");
    // A cancel request in clear text is heard too: clients before PostgreSQL 17 know no other.
    let said =
        python(&CANCEL.replace("cancel_safe(timeout=30)", "cancel()"), &[&conninfo(&keyway, pooled)]).await?;
    assert_eq!(said.text.trim(), "cancelled\n(1,)");
    Ok(())
}

async fn direct_to_servers(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let pair = files.authority.sign(&["127.0.0.1"], "server")?;
    let installation = harness.installation18().await?;
    let server = TlsServer::start(&harness, installation, &pair, &files.authority).await?;
    let direct = "server_tls_negotiation = \"direct\"";
    let keyway = both_sides(&harness, &files, &server, "", direct).await?;
    let said = python(CANCEL, &[&conninfo(&keyway, "sslmode=require sslnegotiation=direct")]).await?;
    assert_eq!(said.text.trim(), "cancelled\n(1,)");
    let said = python(MUCH, &[&conninfo(&keyway, "sslmode=require sslnegotiation=direct")]).await?;
    assert_eq!(said.text.trim(), "True 20000 3000000 25000");
    // An older server takes it for rubbish.
    let old = start(&harness, &files).await?;
    let ca = files.path("ca.crt");
    let lines =
        format!("server_tls = \"verify-full\"\nserver_ca = \"{ca}\"\n{direct}\nfailover_hold = \"2s\"\n");
    let keyway = harness.start_keyway_unready(config(&old.shard, "", "", &lines)).await?;
    let refused = connect(&keyway.url(USER, APP_PASSWORD, DATABASE)).await.err().ok_or("logged in")?;
    let refused = as_db_error(*refused.downcast::<tokio_postgres::Error>()?)?;
    assert_error(&refused, "57P03", "has no primary");
    Ok(())
}

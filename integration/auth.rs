//! Who may log in, to Keyway and through it: each method in each direction, stored verifiers, and users that
//! only the servers know.

use std::net::SocketAddr;
use std::sync::Arc;

use keyway::demo::postgres::{SUPERUSER, Server, Shard};
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio_postgres::NoTls;
use tokio_postgres::error::DbError;

use crate::harness::wire::{Wire, message, startup};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, as_db_error,
    assert_error, assert_hits, connect, rows, run, until,
};

const DATABASE: &str = SingleFixture::DATABASE;
/// Of the roles that these tests make.
const PASSWORD: &str = "pass word";
const PASSWORD_IN_URL: &str = "pass%20word";

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("auth::each_method_to_clients", each_method_to_clients),
        harness.test("auth::what_clients_send_wrong", what_clients_send_wrong),
        harness.test("auth::each_method_to_servers", each_method_to_servers),
        harness.test("auth::probes_show_no_password_either", probes_show_no_password_either),
        harness.test("auth::a_verifier_opens_servers_that_have_it", a_verifier_opens_servers),
        harness.test("auth::users_that_the_config_does_not_list", users_not_listed),
        harness.test("auth::what_auth_query_may_answer", what_auth_query_may_answer),
        harness.test("auth::the_function_of_the_manual", the_function_of_the_manual),
        harness.test("auth::a_name_is_looked_up_once", a_name_is_looked_up_once),
    ]
}

fn config(shard: &Shard, users: &str, database: &str) -> impl Fn(&str, &str) -> String {
    let servers: Vec<String> = shard.servers().map(|it| format!("\"{}\"", it.address())).collect();
    let (users, database, servers) = (users.to_owned(), database.to_owned(), servers.join(", "));
    move |listen, admin| {
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n{users}\n\
             [databases.{DATABASE}]\nservers = [{servers}]\n{database}\n"
        )
    }
}

async fn create_role(server: &Server, name: &str) -> Outcome {
    let client = server.connect(DATABASE).await?;
    let sql = format!("DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'");
    Ok(client.batch_execute(&sql).await?)
}

async fn stored(server: &Server, name: &str) -> Fallible<String> {
    let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{name}'");
    Ok(server.query_text(&sql).await?.ok_or("no such role")?)
}

fn url(keyway: &KeywayProcess, user: &str) -> String {
    keyway.url(user, PASSWORD_IN_URL, DATABASE)
}

async fn refusal(url: &str) -> Fallible<DbError> {
    match tokio_postgres::connect(url, NoTls).await {
        Ok(_) => Err("logged in".into()),
        Err(error) => as_db_error(error),
    }
}

/// Logged in and at a server, both as `user`.
async fn assert_served(keyway: &KeywayProcess, user: &str) -> Outcome {
    let client = connect(&url(keyway, user)).await?;
    assert_eq!(rows(&client, "SELECT current_user").await?, [user]);
    // A write goes to the primary; a read may have gone to a replica.
    assert_eq!(rows(&client, "SELECT current_user FOR UPDATE").await?, [user]);
    Ok(())
}

/// The code of the first Authentication message.
async fn method_asked(address: SocketAddr, user: &str) -> Fallible<u8> {
    let mut wire = Wire::connect(address).await?;
    wire.send(&startup(196_608, &[("user", user), ("database", DATABASE)])).await?;
    let asked = wire.message().await?;
    assert_eq!((asked.tag, &asked.body[..3]), ('R', &[0, 0, 0][..]), "{user}");
    Ok(asked.body[3])
}

async fn each_method_to_clients(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let methods = [("scram", 10), ("md5", 5), ("password", 3), ("trust", 0)];
    let mut users = String::new();
    for (method, _) in methods {
        create_role(&shard.primary, &format!("auth_{method}")).await?;
        users += &format!("[users.auth_{method}]\nauth = \"{method}\"\npassword = \"{PASSWORD}\"\n");
    }
    shard.wait_until_replayed().await?;
    let keyway = harness.start_keyway(config(shard, &users, "")).await?;
    for (method, code) in methods {
        let user = format!("auth_{method}");
        assert_eq!(method_asked(keyway.listen(), &user).await?, code, "{user}");
        assert_served(&keyway, &user).await?;
        let wrong = keyway.url(&user, "other", DATABASE);
        if method == "trust" {
            connect(&wrong).await?;
        } else {
            let message = format!("password authentication failed for user \"{user}\"");
            assert_error(&refusal(&wrong).await?, "28P01", &message);
        }
    }
    // As PostgreSQL, whose pg_hba.conf may ask names that it does not know.
    assert_eq!(method_asked(keyway.listen(), "auth_nobody").await?, 10);
    let nobody = refusal(&url(&keyway, "auth_nobody")).await?;
    assert_error(&nobody, "28P01", "password authentication failed for user \"auth_nobody\"");
    Ok(())
}

async fn what_clients_send_wrong(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let users = format!("[users.auth_clear]\nauth = \"password\"\npassword = \"{PASSWORD}\"\n");
    let keyway = harness.start_keyway(config(shard, &users, "")).await?;
    let words = [
        (message('p', b"\0"), "28P01 empty password returned by client"),
        (message('p', b""), "08P01 invalid password packet size"),
        (message('p', b"a\0b\0"), "08P01 invalid password packet size"),
        (message('p', b"\xff\0"), "28P01 password authentication failed for user \"auth_clear\""),
        (message('Q', b"SELECT 1\0"), "08P01 expected password response, got message type 81"),
    ];
    for (bytes, answer) in words {
        let mut wire = Wire::connect(keyway.listen()).await?;
        wire.send(&startup(196_608, &[("user", "auth_clear"), ("database", DATABASE)])).await?;
        wire.message().await?;
        wire.send(&bytes).await?;
        assert_eq!(wire.message().await?.error(), answer);
        assert!(wire.rest().await?.is_empty());
    }
    Ok(())
}

/// Lines in front of pg_hba.conf.
async fn allow(server: &Server, lines: &str) -> Outcome {
    let path = server.data_dir().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&path)?;
    std::fs::write(&path, format!("{lines}\n{rules}"))?;
    server.query_text("SELECT pg_reload_conf()").await?;
    Ok(())
}

async fn own_shard(harness: &Shared) -> Fallible<crate::harness::OwnShard> {
    let own = harness.fresh_shard(0).await?;
    own.shard.primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
    Ok(own)
}

async fn each_method_to_servers(harness: Arc<Shared>) -> Outcome {
    let own = own_shard(&harness).await?;
    let primary = &own.shard.primary;
    create_role(primary, "asked_md5").await?;
    create_role(primary, "asked_clear").await?;
    let client = primary.connect(DATABASE).await?;
    client.batch_execute("SET password_encryption = md5").await?;
    client.batch_execute(&format!("CREATE ROLE digest LOGIN PASSWORD '{PASSWORD}'")).await?;
    client.batch_execute(&format!("ALTER ROLE asked_md5 PASSWORD '{PASSWORD}'")).await?;
    let rules = "host all asked_clear 127.0.0.1/32 password\nhost all asked_md5,digest 127.0.0.1/32 md5";
    allow(primary, rules).await?;
    let until_asked = async |user: &str, code: u8| {
        let address: SocketAddr = primary.address().parse()?;
        until("the rules are in force", async || Ok(method_asked(address, user).await? == code)).await
    };
    until_asked("asked_clear", 3).await?;
    let mut users = String::new();
    for user in ["asked_md5", "asked_clear"] {
        users += &format!("[users.{user}]\npassword = \"{PASSWORD}\"\n");
    }
    users +=
        &format!("[users.digest]\nauth = \"md5\"\npassword = \"{}\"\n", stored(primary, "digest").await?);
    let weak = format!(
        "[databases.weak]\ndbname = \"{DATABASE}\"\nservers = [\"{}\"]\n\
         server_auth = [\"scram\", \"md5\", \"password\"]",
        primary.address()
    );
    let keyway = harness.start_keyway(config(&own.shard, &users, &weak)).await?;
    for (user, method) in [("asked_md5", "md5"), ("digest", "md5"), ("asked_clear", "password (clear text)")]
    {
        let client = connect(&keyway.url(user, PASSWORD_IN_URL, "weak")).await?;
        assert_eq!(rows(&client, "SELECT current_user").await?, [user]);
        let refused = refusal(&url(&keyway, user)).await?;
        assert_error(&refused, "08006", "cannot connect to server");
        let why =
            format!("authentication method {method}, which `server_auth` of this database does not allow");
        assert!(refused.detail().is_some_and(|it| it.contains(&why)), "{refused:?}");
    }
    Ok(())
}

async fn probes_show_no_password_either(harness: Arc<Shared>) -> Outcome {
    let own = own_shard(&harness).await?;
    let primary = &own.shard.primary;
    create_role(primary, "asked_clear").await?;
    allow(primary, "host all asked_clear 127.0.0.1/32 password").await?;
    let address: SocketAddr = primary.address().parse()?;
    until("the rule is in force", async || Ok(method_asked(address, "asked_clear").await? == 3)).await?;
    let users = format!("[users.asked_clear]\npassword = \"{PASSWORD}\"\n");
    let settings = "probe_user = \"asked_clear\"\nfailover_hold = \"300ms\"\n";
    let keyway = harness.start_keyway_unready(config(&own.shard, &users, settings)).await?;
    let why =
        "authentication method password (clear text), which `server_auth` of this database does not allow";
    let refused = refusal(&keyway.url(USER, APP_PASSWORD, DATABASE)).await?;
    assert_error(&refused, "57P03", "has no primary");
    assert!(refused.detail().is_some_and(|it| it.contains(why)), "{refused:?}");
    assert_eq!(keyway.http("/readyz").await?.0, 503);
    let settings = "probe_user = \"asked_clear\"\nserver_auth = [\"scram\", \"password\"]\n";
    let keyway = harness.start_keyway(config(&own.shard, &users, settings)).await?;
    assert_served(&keyway, "asked_clear").await
}

async fn a_verifier_opens_servers(harness: Arc<Shared>) -> Outcome {
    let own = own_shard(&harness).await?;
    let primary = &own.shard.primary;
    let mut users = String::new();
    for (user, method) in
        [("by_proof", "scram"), ("by_md5", "md5"), ("by_clear", "password"), ("other", "scram")]
    {
        create_role(primary, user).await?;
        let verifier = stored(primary, user).await?;
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
        users += &format!("[users.{user}]\nauth = \"{method}\"\npassword = \"{verifier}\"\n");
    }
    // The same password, with another salt.
    primary
        .connect(DATABASE)
        .await?
        .batch_execute(&format!("ALTER ROLE other PASSWORD '{PASSWORD}'"))
        .await?;
    let keyway = harness.start_keyway(config(&own.shard, &users, "")).await?;
    for user in ["by_proof", "by_md5", "by_clear"] {
        let wrong = refusal(&keyway.url(user, "other", DATABASE)).await?;
        assert_error(&wrong, "28P01", &format!("password authentication failed for user \"{user}\""));
        assert_served(&keyway, user).await?;
        // What was learned stays when the client has gone.
        assert_served(&keyway, user).await?;
    }
    let refused = refusal(&url(&keyway, "other")).await?;
    assert_error(&refused, "08006", "cannot connect to server");
    assert!(refused.detail().is_some_and(|it| it.contains("is not the one that keyway has")), "{refused:?}");
    let log = keyway.log();
    assert!(!log.contains("SCRAM-SHA-256$") && !log.contains(PASSWORD), "{log}");
    Ok(())
}

fn asking(settings: &str) -> (String, String) {
    let user = format!("[users.{SUPERUSER}]\npassword = \"{APP_PASSWORD}\"\n");
    (user, format!("auth_user = \"{SUPERUSER}\"\n{settings}"))
}

async fn users_not_listed(harness: Arc<Shared>) -> Outcome {
    let own = own_shard(&harness).await?;
    let primary = &own.shard.primary;
    let (users, settings) = asking("auth_query_lifetime = \"1h\"\nauth_query_users_max = 2\n");
    let keyway = harness.start_keyway(config(&own.shard, &users, &settings)).await?;
    let unknown = refusal(&url(&keyway, "later")).await?;
    assert_error(&unknown, "28P01", "password authentication failed for user \"later\"");
    for user in ["found", "later", "third"] {
        create_role(primary, user).await?;
    }
    assert_served(&keyway, "found").await?;
    assert_error(
        &refusal(&keyway.url("found", "other", DATABASE)).await?,
        "28P01",
        "password authentication failed for user \"found\"",
    );
    // "No such user" is not believed for longer than a guesser has to wait.
    until("the new role is seen", async || Ok(connect(&url(&keyway, "later")).await.is_ok())).await?;
    // So is a new password.
    let admin = primary.connect(DATABASE).await?;
    admin.batch_execute("ALTER ROLE found PASSWORD 'new'").await?;
    let new = keyway.url("found", "new", DATABASE);
    until("the new password is seen", async || Ok(connect(&new).await.is_ok())).await?;
    let client = connect(&new).await?;
    assert_eq!(rows(&client, "SELECT current_user").await?, ["found"]);
    // Each has pools of its own, so there are so many and no more; who has gone makes room.
    let second = connect(&url(&keyway, "later")).await?;
    let third = refusal(&url(&keyway, "third")).await?;
    assert_error(&third, "53300", &format!("too many users of database \"{DATABASE}\" are connected"));
    assert_hits(&keyway, "auth_query_users_max", 1).await?;
    drop(second);
    until("there is room", async || Ok(connect(&url(&keyway, "third")).await.is_ok())).await?;
    let metrics = keyway.metrics().await?;
    assert!(metrics.contains("user=\"third\"") && !metrics.contains("user=\"later\""), "{metrics}");
    // An expired password is none.
    admin.batch_execute("ALTER ROLE third VALID UNTIL '2001-01-01'").await?;
    drop(client);
    let (users, settings) = asking("auth_query_lifetime = \"0s\"");
    let keyway = harness.start_keyway(config(&own.shard, &users, &settings)).await?;
    assert_eq!(refusal(&url(&keyway, "third")).await?.code().code(), "28P01");
    Ok(())
}

async fn what_auth_query_may_answer(harness: Arc<Shared>) -> Outcome {
    let own = own_shard(&harness).await?;
    let primary = &own.shard.primary;
    create_role(primary, "found").await?;
    // The role's own settings do not lead the query astray.
    let evil = format!(
        "CREATE SCHEMA evil; CREATE VIEW evil.pg_shadow AS SELECT usename, 'guessed'::text AS passwd FROM \
         pg_catalog.pg_shadow; ALTER ROLE {SUPERUSER} SET search_path = evil, pg_catalog"
    );
    primary.connect(DATABASE).await?.batch_execute(&evil).await?;
    let with = async |query: &str| {
        let (users, settings) = asking(&format!("auth_query = \"{query}\""));
        harness.start_keyway(config(&own.shard, &users, &settings)).await
    };
    let keyway = with("SELECT usename, passwd FROM pg_shadow WHERE usename = $1").await?;
    assert_served(&keyway, "found").await?;
    assert_eq!(refusal(&keyway.url("found", "guessed", DATABASE)).await?.code().code(), "28P01");
    let wrong = [
        ("SELECT usename, passwd FROM pg_shadow WHERE usename = $1 OR true ORDER BY 1", "more than one row"),
        ("SELECT usename FROM pg_shadow WHERE usename = $1", "less than two columns"),
        ("SELECT 'other', passwd FROM pg_shadow WHERE usename = $1", "another user's name"),
        ("SELECT usename, passwd FROM no_such WHERE usename = $1", "(SQLSTATE 42P01)"),
    ];
    for (query, why) in wrong {
        let keyway = with(query).await?;
        assert_error(&refusal(&url(&keyway, "found")).await?, "08006", "cannot look up user");
        assert!(keyway.log().contains(why), "{}", keyway.log());
        // The connection is good for the next question, and users of the config need none.
        assert_error(&refusal(&url(&keyway, "found")).await?, "08006", "cannot look up user");
        connect(&keyway.url(USER, APP_PASSWORD, DATABASE)).await?;
    }
    let keyway = with("SELECT usename, NULL FROM pg_shadow WHERE usename = $1").await?;
    assert_eq!(refusal(&url(&keyway, "found")).await?.code().code(), "28P01");
    let slow = "SELECT usename, passwd FROM pg_shadow, pg_sleep(600) WHERE usename = $1";
    let (users, settings) = asking(&format!("auth_query = \"{slow}\"\nauth_query_timeout = \"300ms\""));
    let keyway = harness.start_keyway(config(&own.shard, &users, &settings)).await?;
    assert_error(&refusal(&url(&keyway, "found")).await?, "08006", "cannot look up user");
    assert_hits(&keyway, "auth_query_timeout", 1).await
}

/// The text between ```` ```language ```` and ```` ``` ````.
fn block<'a>(page: &'a str, language: &str) -> Fallible<&'a str> {
    let (_, rest) = page.split_once(&format!("```{language}\n")).ok_or("no such block")?;
    Ok(rest.split_once("```").ok_or("no end of the block")?.0)
}

async fn the_function_of_the_manual(harness: Arc<Shared>) -> Outcome {
    let own = own_shard(&harness).await?;
    let primary = &own.shard.primary;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/authentication.md"))?;
    create_role(primary, "found").await?;
    create_role(primary, "keyway_auth").await?;
    primary.connect(DATABASE).await?.batch_execute(block(&page, "sql")?).await?;
    let (_, settings) = block(&page, "toml")?.split_once("[databases.shop]\n").ok_or("no such section")?;
    let users = format!("[users.keyway_auth]\npassword = \"{PASSWORD}\"\n");
    let keyway = harness.start_keyway(config(&own.shard, &users, settings)).await?;
    assert_served(&keyway, "found").await?;
    // Superusers stay out, as those who are not there.
    for user in [SUPERUSER, "nobody"] {
        let refused = refusal(&keyway.url(user, APP_PASSWORD, DATABASE)).await?;
        assert_error(&refused, "28P01", "password authentication failed for user");
    }
    Ok(())
}

async fn a_name_is_looked_up_once(harness: Arc<Shared>) -> Outcome {
    let own = own_shard(&harness).await?;
    let primary = &own.shard.primary;
    create_role(primary, "found").await?;
    let admin = primary.connect(DATABASE).await?;
    admin
        .batch_execute(
            "CREATE SCHEMA lookup; CREATE TABLE lookup.calls (name text);
             CREATE FUNCTION lookup.find(who text, OUT name text, OUT password text) LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN
                 INSERT INTO lookup.calls VALUES (who);
                 PERFORM pg_sleep(0.2);
                 SELECT usename, passwd INTO name, password FROM pg_catalog.pg_shadow WHERE usename = who;
             END $$;
             CREATE ROLE asker LOGIN PASSWORD 'asker'; GRANT USAGE ON SCHEMA lookup TO asker",
        )
        .await?;
    let users = "[users.asker]\npassword = \"asker\"\n";
    let settings =
        "auth_user = \"asker\"\nauth_query = \"SELECT * FROM lookup.find($1) WHERE name IS NOT NULL\"\n";
    let keyway = harness.start_keyway(config(&own.shard, users, settings)).await?;
    let logins: Vec<_> = (0..10)
        .map(|_| {
            let url = url(&keyway, "found");
            tokio::spawn(async move { connect(&url).await })
        })
        .collect();
    for login in logins {
        run(&login.await??, "SELECT 1").await?;
    }
    assert_eq!(rows(&admin, "SELECT name FROM lookup.calls").await?, ["found"]);
    // Another connection takes the place of one that was lost.
    run(&admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'asker'").await?;
    assert_eq!(refusal(&url(&keyway, "nobody")).await?.code().code(), "28P01");
    assert_eq!(rows(&admin, "SELECT name FROM lookup.calls").await?, ["found", "nobody"]);
    Ok(())
}

//! The leak matrix: client A makes a state that belongs to a session; client B on the same servers must not
//! see it, A must still see it, and when A has let go or was cut off, no server of the pool shows it. What is
//! to be seen with and without the state is what PostgreSQL itself shows.
//!
//! The pool has two connections, because a state that nothing can carry over keeps one of them with its
//! client. Nothing here says which states those are.

mod states;

use std::net::SocketAddr;
use std::sync::Arc;

use libtest_mimic::Trial;

use self::states::{CODE, OBJECTS, Probe, SETTINGS, State};
use crate::harness::wire::{Message, Wire, bind, execute, flush, message, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, until};

const TRIALS: usize = 10;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness
            .test("leaks::settings", |it| async move { holds(&it, "leaks_settings", SETTINGS, keeps).await }),
        harness.test("leaks::objects", |it| async move { holds(&it, "leaks_objects", OBJECTS, keeps).await }),
        harness.test("leaks::code", |it| async move { holds(&it, "leaks_code", CODE, keeps).await }),
        harness.test("leaks::settings_of_who_is_cut_off", |it| async move {
            holds(&it, "leaks_settings_cut", SETTINGS, is_cut_off).await
        }),
        harness.test("leaks::objects_of_who_is_cut_off", |it| async move {
            holds(&it, "leaks_objects_cut", OBJECTS, is_cut_off).await
        }),
        harness.test("leaks::code_of_who_is_cut_off", |it| async move {
            holds(&it, "leaks_code_cut", CODE, is_cut_off).await
        }),
        harness.test("leaks::work_of_who_is_cut_off", work_of_who_is_cut_off),
    ]
}

/// What every state's makers find. The user is a superuser for those that need one.
const SCHEMA: &str = "CREATE SEQUENCE leak_seq; CREATE TABLE leak_t (a int); \
    CREATE FUNCTION leak_sets() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
        PERFORM set_config('work_mem', '7MB', false); RETURN 1; END $$; \
    CREATE FUNCTION leak_sets_dynamically() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
        EXECUTE 'SET ' || 'work_mem = ' || quote_literal('7MB'); RETURN 1; END $$; \
    CREATE FUNCTION leak_creates() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
        CREATE TEMP TABLE leak_temp (a int); RETURN 1; END $$; \
    CREATE FUNCTION leak_locks() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
        PERFORM pg_advisory_lock(1905); RETURN 1; END $$; \
    CREATE FUNCTION leak_prepares() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
        EXECUTE 'PREPARE leak_p AS SELECT 7'; RETURN 1; END $$; \
    CREATE VIEW leak_view AS SELECT leak_locks() AS a; \
    CREATE FUNCTION leak_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        PERFORM pg_advisory_lock(1905); RETURN NEW; END $$; \
    CREATE TABLE leak_triggered (a int); \
    CREATE TRIGGER leak BEFORE INSERT ON leak_triggered FOR EACH ROW EXECUTE FUNCTION leak_trigger(); \
    CREATE PROCEDURE leak_called() LANGUAGE plpgsql AS $$ BEGIN \
        PERFORM pg_advisory_lock(1905); COMMIT; PERFORM set_config('work_mem', '7MB', false); END $$";

/// A database of its own, its user a superuser, and a Keyway in front of its primary.
struct Place {
    keyway: KeywayProcess,
    server: SocketAddr,
    name: &'static str,
}

impl Place {
    async fn start(harness: &Shared, name: &'static str) -> Fallible<Place> {
        let primary = &harness.single().await?.shard.primary;
        primary.create_database(name, name, APP_PASSWORD).await?;
        let owner = primary.connect(name).await?;
        let role = format!("{name}_other");
        owner
            .batch_execute(&format!(
                "CREATE ROLE {role}; ALTER ROLE {name} SUPERUSER; SET ROLE {name}; {SCHEMA}; \
                 GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON SEQUENCE leak_seq TO {role}"
            ))
            .await?;
        owner.batch_execute(&format!("SELECT pg_replication_origin_create('{name}')")).await?;
        let address = primary.address();
        let keyway = harness
            .start_keyway(|listen, admin| {
                format!(
                    "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{name}]\npassword = \"{APP_PASSWORD}\"\n\
                     [databases.{name}]\nservers = [\"{address}\"]\n[databases.{name}.pool]\nsize = 2\n\
                     wait_timeout = \"20s\"\n"
                )
            })
            .await?;
        Ok(Place { keyway, server: address.parse()?, name })
    }

    async fn client(&self, state: &State) -> Fallible<Wire> {
        self.log_in(self.keyway.listen(), state.startup).await
    }

    async fn log_in(&self, at: SocketAddr, startup: &[(&str, &str)]) -> Fallible<Wire> {
        Wire::log_in(at, self.name, APP_PASSWORD, self.name, startup).await
    }

    async fn end_servers(&self) -> Fallible<()> {
        let mut direct = self.log_in(self.server, &[]).await?;
        let all = "FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()";
        direct.rows(&format!("SELECT pg_terminate_backend(pid, 5000) {all}")).await?;
        Ok(())
    }

    /// The statements of a state, with the names of this place.
    fn made_by(&self, state: &State) -> Vec<String> {
        state.made_by.iter().map(|it| it.replace("$name", self.name)).collect()
    }

    /// What PostgreSQL shows with and without the state.
    async fn expected(&self, state: &State) -> Fallible<[String; 2]> {
        let mut bare = self.log_in(self.server, &[]).await?;
        let mut made = self.log_in(self.server, state.startup).await?;
        make(&mut made, state, &self.made_by(state)).await?;
        let expected = [self.seen(&mut made, state).await?, self.seen(&mut bare, state).await?];
        assert_ne!(expected[0], expected[1], "{}: the probe sees nothing", state.name);
        leave(made, self).await?;
        Ok(expected)
    }

    async fn seen(&self, wire: &mut Wire, state: &State) -> Fallible<String> {
        Ok(match state.probe {
            Probe::Sql(sql) => told(&wire.ask(&query(&sql.replace("$name", self.name)), 1).await?),
            Probe::Statement(name) => {
                told(&wire.ask(&[bind("", name, &[], false), execute("", 0), sync()].concat(), 1).await?)
            }
            Probe::Notified(channel) => self.notified(wire, channel).await?,
        })
    }

    /// Whether it hears of what somebody else says, which a third one hears for certain.
    async fn notified(&self, wire: &mut Wire, channel: &str) -> Fallible<String> {
        let mut third = self.log_in(self.server, &[]).await?;
        third.rows(&format!("LISTEN {channel}")).await?;
        let mut said = third.ask(&query(&format!("NOTIFY {channel}, 'said'")), 1).await?;
        while !said.iter().any(|it| it.tag == 'A') {
            said = third.ask(&query("SELECT 1"), 1).await?;
        }
        // Whoever listens is told before long; who does not listen is asked often enough to be told.
        for _ in 0..20 {
            let answer = wire.ask(&query("SELECT pg_sleep(0.002)"), 1).await?;
            if answer.iter().any(|it| it.tag == 'A' && it.body[4..].starts_with(channel.as_bytes())) {
                return Ok("heard".to_owned());
            }
        }
        Ok("not heard".to_owned())
    }

    /// Two clients that hold both connections of the pool.
    async fn both_servers(&self) -> Fallible<[Wire; 2]> {
        let log_in = || self.log_in(self.keyway.listen(), &[]);
        let mut both = [log_in().await?, log_in().await?];
        for it in &mut both {
            it.ask(&query("BEGIN"), 1).await?;
            it.rows("SELECT pg_backend_pid()").await?;
        }
        Ok(both)
    }

    /// Both connections of the pool, held at once, show nothing of `state`.
    async fn is_clean(&self, state: &State, clean: &str, when: &str) -> Fallible<()> {
        let both = self.both_servers().await;
        let mut both = both.map_err(|error| format!("{}, {when}: {error}", state.name))?;
        for it in &mut both {
            let seen = self.seen(it, state).await?;
            if seen != clean {
                return Err(format!("{}, {when}: leaked: {seen}", state.name).into());
            }
        }
        for it in &mut both {
            it.ask(&query("ROLLBACK"), 1).await?;
        }
        Ok(())
    }
}

/// The first value of each row, or the SQLSTATE of an error.
fn told(answer: &[Message]) -> String {
    if let Some(error) = answer.iter().find(|it| it.tag == 'E') {
        return format!("error {}", error.field('C').unwrap_or_default());
    }
    let rows = answer.iter().filter(|it| it.tag == 'D');
    rows.map(|it| it.body.get(6..).unwrap_or_default().escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(",")
}

async fn make(wire: &mut Wire, state: &State, made_by: &[String]) -> Fallible<()> {
    if let Probe::Statement(name) = state.probe {
        wire.ask(&[parse(name, "SELECT 7"), sync()].concat(), 1).await?;
    }
    for sql in made_by {
        let answer = wire.ask(&query(sql), 1).await?;
        if let Some(error) = answer.iter().find(|it| it.tag == 'E') {
            return Err(format!("{}: {sql}: {}", state.name, error.error()).into());
        }
    }
    Ok(())
}

/// Ends a direct connection and waits for its end, so that what it held is free.
async fn leave(mut wire: Wire, place: &Place) -> Fallible<()> {
    let pid = wire.rows("SELECT pg_backend_pid()").await?.concat();
    wire.shut().await?;
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    let mut other = place.log_in(place.server, &[]).await?;
    for _ in 0..1000 {
        if other.rows(&gone).await? == ["0"] {
            return Ok(());
        }
        other.rows("SELECT pg_sleep(0.005)").await?;
    }
    Err(format!("backend {pid} does not end").into())
}

/// Checks every state, so that one run shows the whole matrix.
async fn holds<F>(harness: &Shared, name: &'static str, states: &[State], check: F) -> Outcome
where
    F: AsyncFn(&Place, &State, &[String; 2], usize) -> Fallible<()>,
{
    let place = Place::start(harness, name).await?;
    let mut problems = Vec::new();
    for state in states {
        let expected = place.expected(state).await?;
        for trial in 0..TRIALS {
            if let Err(problem) = check(&place, state, &expected, trial).await {
                problems.push(format!("{problem} (trial {trial})"));
                // What leaked must not spoil the other states' trials.
                place.end_servers().await?;
                break;
            }
        }
    }
    assert!(problems.is_empty(), "{} of {} states\n{}", problems.len(), states.len(), problems.join("\n"));
    Ok(())
}

/// A keeps its state while B comes and goes, and takes it along when it lets go.
async fn keeps(place: &Place, state: &State, [mine, clean]: &[String; 2], trial: usize) -> Fallible<()> {
    let mut one = place.client(state).await?;
    make(&mut one, state, &place.made_by(state)).await?;
    let mut other = place.log_in(place.keyway.listen(), &[]).await?;
    for turn in 0..2 {
        let seen = place.seen(&mut other, state).await?;
        if seen != *clean {
            return Err(format!("{}: leaked in turn {turn}: {seen}", state.name).into());
        }
        let seen = place.seen(&mut one, state).await?;
        if seen != *mine {
            return Err(format!("{}: lost in turn {turn}: {seen} instead of {mine}", state.name).into());
        }
    }
    // Its own question may have tied it to a server.
    drop(other);
    if trial % 2 == 1 && state.ends_with_discard {
        one.ask(&query("DISCARD ALL"), 1).await?;
        place.is_clean(state, clean, "after DISCARD ALL").await?;
    } else {
        drop(one);
        place.is_clean(state, clean, "after its client left").await?;
    }
    Ok(())
}

/// A's connection breaks: with the state on its way, inside of a transaction, and afterwards.
async fn is_cut_off(place: &Place, state: &State, expected: &[String; 2], trial: usize) -> Fallible<()> {
    let made_by = place.made_by(state);
    let mut one = place.client(state).await?;
    let when = match trial % 3 {
        0 => {
            let all = made_by.iter().map(|it| query(it)).collect::<Vec<_>>().concat();
            one.send(&all).await?;
            "cut off at once"
        }
        1 => {
            one.ask(&query("BEGIN"), 1).await?;
            // What may not run in a transaction has made nothing.
            let _ = make(&mut one, state, &made_by).await;
            "cut off in a transaction"
        }
        _ => {
            make(&mut one, state, &made_by).await?;
            "cut off afterwards"
        }
    };
    drop(one);
    place.is_clean(state, &expected[1], when).await
}

/// What a client may be about when it is cut off.
fn works() -> Vec<(&'static str, Vec<u8>)> {
    let insert =
        [parse("", "INSERT INTO leak_t VALUES (1)"), bind("", "", &[], false), execute("", 0)].concat();
    let rows = "SELECT repeat('unread', 1000) FROM generate_series(1, 10000)";
    let locks = "BEGIN; INSERT INTO leak_t VALUES (1); LOCK TABLE leak_t; SELECT pg_advisory_lock(7)";
    vec![
        ("many unread answers", query(rows).repeat(5)),
        ("COPY FROM STDIN", [query("COPY leak_t FROM STDIN"), message('d', b"1\n2\n")].concat()),
        ("a COPY message", [query("COPY leak_t FROM STDIN"), b"d\0\0\x10\0half of".to_vec()].concat()),
        ("COPY TO STDOUT", query(&format!("COPY ({rows}) TO STDOUT"))),
        ("an open transaction", query(locks)),
        ("a failed transaction", query("BEGIN; INSERT INTO leak_t VALUES (1); SELECT 1/0")),
        ("an exchange without Sync", insert.clone()),
        ("an exchange with Flush", [insert, flush()].concat()),
        ("an error without Sync", [parse("", "SELECT nothing"), flush()].concat()),
        ("a running query", query("BEGIN; LOCK TABLE leak_t; SELECT pg_sleep(600)")),
        // That it has left is noticed when the query ends.
        (
            "a running query before others",
            [query("BEGIN; LOCK TABLE leak_t; SELECT pg_sleep(0.2)"), query("SELECT 1")].concat(),
        ),
        (
            "a pin",
            [query("CREATE TEMP TABLE leak_temp (a int)"), query("SELECT pg_advisory_lock(7)")].concat(),
        ),
        ("a pin in a transaction", query("BEGIN; CREATE TEMP TABLE leak_temp (a int); LOCK TABLE leak_t")),
        ("listening", query("LISTEN leak_channel")),
        (
            "listening in a transaction",
            [query("BEGIN"), query("LISTEN leak_channel"), query("INSERT INTO leak_t VALUES (1)")].concat(),
        ),
        ("half a message", query("INSERT INTO leak_t VALUES (1)")[..12].to_vec()),
    ]
}

/// None of it stays, and the servers serve others.
async fn work_of_who_is_cut_off(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "leaks_work").await?;
    let mut direct = place.log_in(place.server, &[]).await?;
    let busy = format!(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = '{0}' AND pid <> pg_backend_pid() \
         AND state <> 'idle') + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = \
         (SELECT oid FROM pg_database WHERE datname = '{0}')) + \
         (SELECT count(*) FROM pg_class WHERE relname = 'leak_temp')",
        place.name
    );
    for (name, bytes) in works() {
        for trial in 0..TRIALS {
            let mut one = place.log_in(place.keyway.listen(), &[]).await?;
            one.send(&bytes).await?;
            if trial % 2 == 1 {
                // Something of it may have been answered by now.
                direct.rows("SELECT pg_sleep(0.01)").await?;
            }
            drop(one);
        }
        let mut both = place.both_servers().await.map_err(|error| format!("{name}: {error}"))?;
        for it in &mut both {
            let rows = it.rows("SELECT count(*) FROM leak_t").await;
            assert_eq!(rows.map_err(|error| format!("{name}: {error}"))?, ["0"], "{name}");
        }
        drop(both);
        let mut asked = 0;
        while direct.rows(&busy).await? != ["0"] {
            asked += 1;
            assert!(asked < 1000, "{name}: a server is still busy");
            direct.rows("SELECT pg_sleep(0.01)").await?;
        }
    }
    until("every client is gone", || async {
        let metrics = place.keyway.metrics().await?;
        let is_zero = |name: &str| metrics.lines().any(|it| it.starts_with(name) && it.ends_with(" 0"));
        Ok(["keyway_clients", "keyway_channels", "keyway_listening_clients"].into_iter().all(is_zero))
    })
    .await?;
    Ok(())
}

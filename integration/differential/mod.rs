//! The same messages to PostgreSQL and through Keyway: the answers are the same, byte for byte, but for
//! process ids, oids of what a script creates, and the source lines that errors of Keyway's own cannot have.
//!
//! Another client of Keyway changes what it can of the server between the turns of each script, so that a
//! script finds its session again on a server that somebody else has used. `KEYWAY_SCRIPTS=copy` runs those
//! with `copy` in their names.

mod corpus;
mod script;
mod sql;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyway::demo::shop;
use libtest_mimic::Trial;
use tokio::time::timeout;
use tokio_postgres::Client;

use self::script::{Agreement, Script, Turn, Wait};
use crate::harness::wire::{Message, Wire, message, query, startup};
use crate::harness::{APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture};

const SCRIPTS: &str = "integration/scripts";
const SCRIPTS_MIN: usize = 150;
const DATABASE: &str = "differential";
const USER: &str = "differ";
const SHOWN_MAX: usize = 400;
/// No script has work for as long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const NO_ANSWER: &str = "no answer in time";
/// Oids below are PostgreSQL's own (`FirstNormalObjectId` in transam.h).
const FIRST_OID: u32 = 16384;

/// What every script finds.
const SCHEMA: &str = "DROP SCHEMA IF EXISTS d CASCADE; CREATE SCHEMA d; \
    CREATE TABLE d.items (id int PRIMARY KEY, name text, price numeric(10,2)); \
    INSERT INTO d.items VALUES (1, 'lock', 9.50), (2, 'key', 0.75), (3, NULL, NULL); \
    CREATE TABLE d.log (at serial, what text NOT NULL CHECK (what <> 'forbidden'))";

/// What somebody else does between the turns: their own settings and their own statement of each kind.
const BETWEEN: &str = "SET work_mem = '77kB'; SET search_path = nowhere; SET datestyle = 'German'; \
    SET application_name = 'somebody else'; SET app.mine = 'not yours'; SET extra_float_digits = 0";

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    let mut tests = sql::tests(harness);
    tests.extend([
        harness.test("differential::scripts_on_this_postgresql", |it| async move {
            runs_all(&it, it.single().await?).await
        }),
        harness.test("differential::scripts_on_postgresql_18", |it| async move {
            let fixture = it.single18().await?;
            let version = fixture.shard.primary.query_text("SHOW server_version_num").await?;
            assert!(version.is_some_and(|it| it.starts_with("18")));
            runs_all(&it, fixture).await
        }),
        harness.test("differential::a_function_call_goes_where_its_transaction_is", function_calls_on_shards),
    ]);
    tests
}

/// An oid tells no shard.
async fn function_calls_on_shards(harness: Arc<Shared>) -> Outcome {
    let url: SocketAddr = harness.shop().await?.keyway.listen();
    let mut wire = Wire::log_in(url, shop::USER, APP_PASSWORD, shop::DATABASE, &[]).await?;
    // int4pl, in text.
    let call = message('F', b"\0\0\0\xb1\0\0\0\x02\0\0\0\x011\0\0\0\x012\0\0");
    let refused = wire.ask(&call, 1).await?;
    assert!(refused[0].error().starts_with("0A000") && refused[0].field('H').is_some(), "{refused:?}");
    wire.ask(&query("BEGIN"), 1).await?;
    wire.rows("SELECT name FROM users WHERE user_id = 7").await?;
    let answer = wire.ask(&call, 1).await?;
    assert_eq!((answer[0].tag, &answer[0].body[..]), ('V', &b"\0\0\0\x013"[..]));
    wire.ask(&query("COMMIT"), 1).await?;
    Ok(())
}

fn scripts() -> Fallible<Vec<Script>> {
    let mut scripts = Vec::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPTS);
    let entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    let files: BTreeMap<_, _> = entries.iter().map(|it| (it.file_name(), it.path())).collect();
    for path in files.values().filter(|it| it.extension().is_some_and(|it| it == "txt")) {
        let file = path.file_name().and_then(|it| it.to_str()).ok_or("a name that is no text")?;
        scripts.extend(script::read(file, &fs::read_to_string(path)?)?);
    }
    assert!(scripts.len() >= SCRIPTS_MIN, "{} scripts, at least {SCRIPTS_MIN} expected", scripts.len());
    Ok(scripts)
}

async fn runs_all(harness: &Shared, fixture: &SingleFixture) -> Outcome {
    let primary = &fixture.shard.primary;
    primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
    let keyway = start_keyway(harness, &primary.address()).await?;
    let owner = format!("postgresql://{USER}:{APP_PASSWORD}@{}/{DATABASE}", primary.address());
    let version = primary.query_text("SHOW server_version_num").await?.ok_or("no version")?;
    let version = version.parse::<u32>()? / 10_000;
    let places = Places {
        direct: primary.address().parse()?,
        through: keyway.listen(),
        owner: crate::harness::connect(&owner).await?,
    };
    let only = std::env::var("KEYWAY_SCRIPTS").unwrap_or_default();
    let mut problems = Vec::new();
    let scripts = scripts()?;
    let runs = |it: &&Script| it.name.contains(&only) && it.server_min <= version;
    for script in scripts.iter().filter(runs) {
        match (places.difference(script).await?, script.agreement) {
            (Some(problem), Agreement::Agrees) => problems.push(format!("{}\n{problem}", script.name)),
            (None, Agreement::Differs) => {
                problems.push(format!("{}\n  agrees: take `Differs` out", script.name))
            }
            _ => {}
        }
    }
    assert!(problems.is_empty(), "{} scripts\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

async fn start_keyway(harness: &Shared, address: &str) -> Fallible<KeywayProcess> {
    // Two, for a script that pins one.
    harness
        .start_keyway(|listen, admin| {
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n\
                 [databases.{DATABASE}]\nservers = [\"{address}\"]\n[databases.{DATABASE}.pool]\nsize = 2\n"
            )
        })
        .await
}

struct Places {
    direct: SocketAddr,
    through: SocketAddr,
    owner: Client,
}

impl Places {
    async fn difference(&self, script: &Script) -> Fallible<Option<String>> {
        let want = self.told(self.direct, script, false).await?;
        if let Some(turn) = want.iter().position(|it| it.last().is_none_or(|it| it.text.ends_with(NO_ANSWER)))
        {
            let name = &script.name;
            return Err(format!("{name}, turn {turn}, awaits what PostgreSQL does not answer").into());
        }
        let got = self.told(self.through, script, true).await?;
        for (turn, (want, got)) in want.iter().zip(&got).enumerate() {
            for index in 0..want.len().max(got.len()) {
                let (want, got) = pair(want.get(index), got.get(index));
                if want != got {
                    let cut = |it: &str| it.chars().take(SHOWN_MAX).collect::<String>();
                    let (want, got) = (cut(&want), cut(&got));
                    return Ok(Some(format!("  turn {turn}, message {index}\n  want {want}\n  got  {got}")));
                }
            }
        }
        Ok(None)
    }

    /// Every turn's answer; the greeting is the first.
    async fn told(&self, at: SocketAddr, script: &Script, between: bool) -> Fallible<Vec<Vec<Told>>> {
        self.owner.batch_execute(SCHEMA).await?;
        let mut names = Names::default();
        let (mut session, greeting) = match log_in(at, script).await {
            Ok(it) => it,
            Err(error) => return Ok(vec![vec![Told::end(&error.to_string())]]),
        };
        names.pid = greeting.iter().find(|it| it.tag == 'K').and_then(|it| it.body.first_chunk().copied());
        let mut parameters: Vec<Told> =
            greeting.iter().filter(|it| it.tag == 'S').map(|it| names.told(it)).collect();
        parameters.sort_by(|a, b| a.text.cmp(&b.text));
        parameters.extend(session.negotiated.take().map(|it| names.told(&it)));
        let key = greeting.iter().find(|it| it.tag == 'K').map_or(0, |it| it.body.len());
        parameters.push(Told { text: format!("K of {key} bytes"), source: None });
        let mut other = None;
        if between {
            other = Some(Wire::log_in(at, USER, APP_PASSWORD, DATABASE, &[]).await?);
        }
        let mut told = vec![parameters];
        for turn in script.turns.iter().filter(|it| !it.bytes.is_empty()) {
            if let Some(other) = &mut other {
                other.ask(&query(BETWEEN), 1).await?;
            }
            let (messages, end) = answer(&mut session, turn).await;
            if let (false, Some(dir)) = (between, std::env::var_os("KEYWAY_WRITE_CORPUS")) {
                corpus::write(Path::new(&dir), &turn.bytes, &messages)?;
            }
            let shown = messages.iter().map(|it| names.told(it)).chain(end.as_deref().map(Told::end));
            told.push(shown.collect());
        }
        Ok(told)
    }
}

async fn log_in(at: SocketAddr, script: &Script) -> Fallible<(Wire, Vec<Message>)> {
    let mut wire = Wire::connect(at).await?;
    let mut parameters = vec![("user", USER), ("database", DATABASE)];
    parameters.extend(script.settings.iter().map(|it| (it.0.as_str(), it.1.as_str())));
    wire.send(&startup(script.protocol, &parameters)).await?;
    wire.prove(APP_PASSWORD).await?;
    let greeting = wire.until('Z').await?;
    match greeting.iter().find(|it| it.tag == 'E') {
        Some(error) => Err(error.error().into()),
        None => Ok((wire, greeting)),
    }
}

/// What came, and how the connection ended if it did.
async fn answer(wire: &mut Wire, turn: &Turn) -> (Vec<Message>, Option<String>) {
    let mut messages = Vec::new();
    if let Err(error) = wire.send(&turn.bytes).await {
        return (messages, Some(error.to_string()));
    }
    let mut left = match turn.wait {
        Wait::Ready(count) => count,
        _ => 1,
    };
    while left > 0 {
        let it = match timeout(ANSWER_TIMEOUT, wire.message()).await {
            Ok(Ok(it)) => it,
            Ok(Err(error)) => return (messages, Some(error.to_string())),
            Err(_) => return (messages, Some(NO_ANSWER.to_owned())),
        };
        left -= usize::from(match turn.wait {
            Wait::Ready(_) => it.tag == 'Z',
            Wait::Message(tag) => it.tag == tag,
            Wait::Closed => false,
        });
        messages.push(it);
    }
    (messages, None)
}

struct Told {
    text: String,
    /// Where in PostgreSQL's source an error arose.
    source: Option<String>,
}

impl Told {
    fn end(text: &str) -> Told {
        Told { text: format!("end: {text}"), source: None }
    }
}

/// Both as text. An error of Keyway's own has no source to compare.
fn pair(want: Option<&Told>, got: Option<&Told>) -> (String, String) {
    let with_source = want.is_some_and(|it| it.source.is_some()) && got.is_some_and(|it| it.source.is_some());
    let text = |it: Option<&Told>| {
        let Some(it) = it else { return "nothing".to_owned() };
        let source = it.source.as_ref().filter(|_| with_source);
        source.map_or_else(|| it.text.clone(), |source| format!("{} {source}", it.text))
    };
    (text(want), text(got))
}

/// What may differ, under names that may not: our process id, and oids in the order in which they came.
#[derive(Default)]
struct Names {
    pid: Option<[u8; 4]>,
    oids: Vec<u32>,
}

impl Names {
    fn told(&mut self, message: &Message) -> Told {
        let text = match message.tag {
            'E' | 'N' => return fields(message),
            'A' => {
                let (pid, rest) = message.body.split_at(4.min(message.body.len()));
                let pid = if self.pid.is_some_and(|it| it == pid) { "its own" } else { "another's" };
                format!("from {pid} process: {}", rest.escape_ascii())
            }
            'T' => self.columns(message).unwrap_or_else(|| message.body.escape_ascii().to_string()),
            't' => {
                let oids = message.body.get(2..).unwrap_or_default().as_chunks::<4>().0;
                let oids: Vec<_> = oids.iter().map(|it| self.oid(u32::from_be_bytes(*it))).collect();
                format!("{} of {} bytes", oids.join(" "), message.body.len())
            }
            _ => message.body.escape_ascii().to_string(),
        };
        Told { text: format!("{} {text}", message.tag), source: None }
    }

    fn columns(&mut self, message: &Message) -> Option<String> {
        let found = message.columns()?;
        let mut columns = vec![format!("{} columns", u16::from_be_bytes(*message.body.first_chunk()?))];
        for (name, fixed) in found {
            let table = self.oid(u32::from_be_bytes(*fixed.first_chunk()?));
            let type_ = self.oid(u32::from_be_bytes(*fixed[6..].first_chunk()?));
            let others = [&fixed[4..6], &fixed[10..]].concat();
            columns.push(format!(
                "{} table {table} type {type_} {}",
                name.escape_ascii(),
                others.escape_ascii()
            ));
        }
        Some(columns.join("; "))
    }

    fn oid(&mut self, oid: u32) -> String {
        if oid < FIRST_OID {
            return oid.to_string();
        }
        let known = self.oids.iter().position(|it| *it == oid);
        let index = known.unwrap_or_else(|| {
            self.oids.push(oid);
            self.oids.len() - 1
        });
        format!("#{index}")
    }
}

/// All fields of an error or notice, in their order.
fn fields(message: &Message) -> Told {
    let (mut told, mut source) = (Vec::new(), Vec::new());
    for field in message.body.split(|it| *it == 0) {
        match field.first() {
            Some(b'F' | b'L' | b'R') => source.push(field.escape_ascii().to_string()),
            Some(_) => told.push(field.escape_ascii().to_string()),
            None => {}
        }
    }
    let source = (!source.is_empty()).then(|| source.join(" | "));
    Told { text: format!("{} {}", message.tag, told.join(" | ")), source }
}

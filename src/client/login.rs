//! From the first byte to the first ReadyForQuery, in bounded time, and the cancel requests that come
//! on connections of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::sync::SemaphorePermit;

use super::encoding;
use super::position;
use super::quota;
use super::registry::{Identity, Registered};
use super::replication::{self, Wanted};
use super::session::Session;
use super::visitor::{self, Console, Visitor};
use super::{Database, Latest, Shared, UserPools};
use crate::auth::{self, Credentials, LoginError};
use crate::base::{Consistency, Reason, Refusal, SqlState};
use crate::cancel::{self, Sender};
use crate::config::{Auth, PoolMode};
use crate::metrics::{Limit, Live};
use crate::net::{Acceptor, Buffer, ClientFacts, ReadError, Stream};
use crate::proto::{Assignment, Settings};
use crate::wire::{self, CancelKey, Replication, Severity, Startup, StartupError, StartupParameters};

/// How long a client may take to read what it is told last.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves one connection to its end, which gives `place` back. `reserved` is on one that only clients of the
/// console may keep. What the future holds of all but a session is boxed, and gone before that begins: it is
/// what every idle client costs.
pub fn serve(
    stream: Stream,
    latest: Arc<Latest>,
    console: Arc<dyn Console>,
    place: quota::Place,
    reserved: bool,
) -> impl Future<Output = ()> + Send {
    let opening = Box::pin(open(stream, latest, console, place, reserved));
    async move {
        if let Some(session) = opening.await {
            session.run().await;
        }
    }
}

/// A session that has logged in. All else is served here.
async fn open(
    mut stream: Stream,
    latest: Arc<Latest>,
    console: Arc<dyn Console>,
    place: quota::Place,
    reserved: bool,
) -> Option<Box<Session>> {
    let shared = latest.load();
    let mut buffer = Buffer::default();
    // Boxed, so that what comes behind a login does not carry what that needed.
    let login = Box::pin(log_in(&mut stream, &mut buffer, &latest, &shared, reserved));
    let refused = match tokio::time::timeout(shared.limits.login_timeout, login).await {
        Ok(Ok(LogIn::Visitor(place))) => {
            shared.metrics.login("ok");
            place.record.set_tls(&stream);
            drop(shared);
            console.serve(Visitor { stream, buffer, place }).await;
            return None;
        }
        Ok(Ok(LogIn::Session(mut login))) => {
            shared.metrics.login("ok");
            login.record.set_tls(&stream);
            let counted = Counted {
                _of_user_and_database: std::mem::take(&mut login.places),
                _tls: stream.is_tls().then(|| Live::new(shared.metrics.tls_clients.clone())),
                _live: Live::new(shared.metrics.clients.clone()),
                _place: place,
            };
            login.entry.received = buffer;
            return Some(Session::new(stream, latest, *login, counted));
        }
        Ok(Ok(LogIn::Replication(wanted))) => {
            let _live = Live::new(shared.metrics.clients.clone());
            drop(shared);
            wanted.record.set_tls(&stream);
            Box::pin(replication::serve(stream, buffer, &latest, *wanted)).await;
            return None;
        }
        Ok(Ok(LogIn::Cancel(key, sender))) => {
            // Closed when it has ended and not before.
            shared.cancels.cancel(key, sender).await;
            if stream.is_tls() {
                // libpq takes an end of TCP without one of TLS for a failure of the cancel.
                let _ = tokio::time::timeout(FAREWELL_TIMEOUT, stream.shutdown()).await;
            }
            return None;
        }
        Ok(Err(LoginError::Refused(refusal))) => Some(refusal),
        Ok(Err(LoginError::Gone(_))) => None,
        // PostgreSQL closes the connection without a word when authentication_timeout ends; a word
        // costs nothing and helps whoever reads the other end's log.
        Err(_) => {
            shared.hits.hit(Limit::LoginTime);
            let message = "canceling authentication due to timeout";
            Some(Refusal::new(Reason::Limit, SqlState::QUERY_CANCELED, message))
        }
    };
    shared.metrics.login(if refused.is_some() { "refused" } else { "left" });
    if let Some(refusal) = refused {
        tracing::info!(peer = ?stream.peer(), %refusal, "login refused");
        Box::pin(say_goodbye(&mut stream, &refusal)).await;
    }
    None
}

/// FATAL, then the end of the stream.
pub(super) async fn say_goodbye(stream: &mut Stream, refusal: &Refusal) {
    if stream.is_handshaking() {
        return;
    }
    let mut out = Vec::new();
    wire::error(&mut out, Severity::Fatal, refusal);
    let farewell = async {
        if stream.write_all(&out).await.is_ok() {
            let _ = stream.shutdown().await;
            // Closing with unread bytes would reset the connection and take our words with it.
            let mut rest = Buffer::default();
            while stream.read(&mut rest).await.is_ok_and(|it| it > 0) && rest.filled().len() < 1 << 20 {}
        }
    };
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
}

/// What a connection turned out to be.
enum LogIn {
    Session(Box<LoggedIn>),
    Visitor(visitor::Place),
    Replication(Box<Wanted>),
    Cancel(CancelKey, Sender),
}

/// A client that has proved who it is.
pub(super) struct LoggedIn {
    pub shared: Arc<Shared>,
    pub record: Registered,
    pub database: Arc<Database>,
    pub pools: Arc<UserPools>,
    pub startup: Settings,
    pub cancel: crate::cancel::Registered,
    /// Of the user and of the database.
    pub places: [Option<quota::Place>; 2],
    pub entry: Box<Entry>,
    pub pool_mode: PoolMode,
    pub consistency: Option<Consistency>,
}

/// What a session begins with and then has no use for.
#[derive(Default)]
pub(super) struct Entry {
    /// What is left to be told of its proof.
    pub greeting: Vec<u8>,
    pub application_name: Option<Arc<str>>,
    /// Settings that a server has to judge before the client is greeted.
    pub unchecked: bool,
    /// What it must see from the first (`SET keyway.position`).
    pub position: Option<String>,
    /// What the client has sent behind its login.
    pub received: Buffer,
}

/// Where a session counts, as long as it lives.
pub(super) struct Counted {
    _of_user_and_database: [Option<quota::Place>; 2],
    _tls: Option<Live<IntGauge>>,
    _live: Live<IntGauge>,
    _place: quota::Place,
}

async fn log_in(
    stream: &mut Stream,
    buffer: &mut Buffer,
    latest: &Latest,
    shared: &Arc<Shared>,
    reserved: bool,
) -> Result<LogIn, LoginError> {
    let Arrival { first, tls } = first_packet(stream, buffer, shared).await?;
    let mut parameters = match first {
        First::Session(it) => it,
        First::Cancel(key, sender) => return Ok(LogIn::Cancel(key, sender)),
    };
    if tls.is_none() && shared.tls.current().is_some_and(|it| it.is_required()) {
        return Err(LoginError::Refused(without_tls()));
    }
    if let Some(minor) = parameters.negotiated_minor() {
        // Before the password is asked for (`ProcessStartupPacket` in backend_startup.c).
        let mut out = Vec::new();
        wire::negotiate_version(&mut out, minor, std::mem::take(&mut parameters.protocol_options));
        stream.write_all(&out).await?;
    }
    let is_visitor = visitor::is_console(&parameters.database);
    if reserved && !is_visitor {
        return Err(LoginError::Refused(too_many(shared)));
    }
    if parameters.replication == Replication::Physical {
        replication::choose_database(&mut parameters.database, shared);
    }
    // Who has not said a word yet takes no turn from those who have.
    let _turn = turn(shared).await;
    let claim = claim(&parameters, shared).await.map_err(LoginError::Refused)?;
    let prover = Prover { parameters: &parameters, claim: &claim, tls: tls.as_ref() };
    let last_word = prove(stream, buffer, shared, prover).await?;
    // Proving may have taken as long as a reload.
    let peer = stream.peer();
    let mut arrival = match parameters.replication {
        _ if is_visitor => visit(parameters, latest, shared, peer).map(LogIn::Visitor),
        Replication::None => greet(parameters, latest, peer, &claim).map(|it| LogIn::Session(Box::new(it))),
        _ => replication::admit(parameters, latest, peer, &claim).map(|it| LogIn::Replication(Box::new(it))),
    };
    match &mut arrival {
        // In one with what it is told next: a send less, and a client that is woken once.
        Ok(LogIn::Session(it)) => it.entry.greeting = last_word,
        _ if last_word.is_empty() => {}
        _ => stream.write_all(&last_word).await?,
    }
    arrival.map_err(LoginError::Refused)
}

async fn turn(shared: &Shared) -> Option<SemaphorePermit<'_>> {
    if let Ok(it) = shared.logins.try_acquire() {
        return Some(it);
    }
    shared.hits.hit(Limit::Logins);
    shared.logins.acquire().await.ok()
}

/// Who a client says that it is, and what is known of that.
pub(super) struct Claim {
    method: Auth,
    credentials: Option<Arc<Credentials>>,
    /// Found by `auth_query`, not in the config.
    found: bool,
}

async fn claim(parameters: &StartupParameters, shared: &Shared) -> Result<Claim, Refusal> {
    if let Some(user) = shared.users.get(&parameters.user) {
        let credentials = Some(user.credentials.clone());
        return Ok(Claim { method: user.method, credentials, found: false });
    }
    let database = shared.databases.get(&parameters.database);
    let Some((database, lookup)) = database.and_then(|it| Some((it, it.lookup.as_ref()?))) else {
        return Ok(Claim { method: Auth::Scram, credentials: None, found: false });
    };
    let known = database.pools.get(&parameters.user).map(|it| it.credentials.clone());
    let credentials = lookup.find(&parameters.user, random()?, known).await?;
    Ok(Claim { method: lookup.method(), credentials, found: true })
}

/// Who has something to prove, and over what.
struct Prover<'a> {
    parameters: &'a StartupParameters,
    claim: &'a Claim,
    tls: Option<&'a ClientFacts>,
}

async fn prove(
    stream: &mut Stream,
    buffer: &mut Buffer,
    shared: &Shared,
    Prover { parameters, claim, tls }: Prover<'_>,
) -> Result<Vec<u8>, LoginError> {
    let client = auth::Client {
        user: &parameters.user,
        method: claim.method,
        credentials: claim.credentials.as_deref(),
        tls,
        mock_secret: &shared.mock_secret,
        nonce: random().map_err(LoginError::Refused)?,
    };
    let proved = auth::authenticate(stream, buffer, &client).await;
    if let Err(LoginError::Refused(refusal)) = &proved
        && refusal.state() == SqlState::INVALID_PASSWORD
        && let Some(lookup) = shared.databases.get(&parameters.database).and_then(|it| it.lookup.as_ref())
    {
        lookup.doubt(&parameters.user);
    }
    proved
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("no randomness to be had: {error}");
        Refusal::new(Reason::Auth, SqlState::INTERNAL_ERROR, message)
    })?;
    Ok(bytes)
}

enum First {
    Session(StartupParameters),
    Cancel(CancelKey, Sender),
}

struct Arrival {
    first: First,
    /// `None` is no TLS.
    tls: Option<ClientFacts>,
}

/// Answers requests for encryption until the startup packet comes.
///
/// ```text
/// Plain ──SSLRequest, or TLS at once──▶ handshake ──▶ Tls ──startup or cancel──▶
///   └──── GSSENCRequest, refused; SSLRequest, refused; startup or cancel ───────▶
/// ```
async fn first_packet(
    stream: &mut Stream,
    buffer: &mut Buffer,
    shared: &Shared,
) -> Result<Arrival, LoginError> {
    let (mut asked, mut tls) = ((false, false), None);
    loop {
        if asked == (false, false) && tls.is_none() && wire::is_direct_tls(buffer.filled()) {
            tls = Some(direct_tls(stream, buffer, shared).await?);
        }
        let found = wire::startup(buffer.filled()).map_err(|it| {
            if it == StartupError::Length {
                shared.hits.hit(Limit::StartupPacket);
            }
            LoginError::Refused(startup_refusal(&it))
        })?;
        let Some((packet, length)) = found else {
            if stream.read(buffer).await? == 0 {
                return Err(ReadError::Closed.into());
            }
            continue;
        };
        buffer.consume(length);
        // Each request may come once, and nothing may follow it before the answer: bytes sent ahead
        // are how a man in the middle injects a query in front of TLS (CVE-2021-23214).
        let again = match packet {
            Startup::Session(it) => return Ok(Arrival { first: First::Session(it), tls }),
            Startup::Cancel(key) => {
                return Ok(Arrival { first: First::Cancel(key, Sender::Client), tls });
            }
            Startup::ForwardedCancel(key) => {
                return Ok(Arrival { first: First::Cancel(key, Sender::Peer), tls });
            }
            Startup::Ssl => std::mem::replace(&mut asked.0, true),
            Startup::GssEnc => std::mem::replace(&mut asked.1, true),
        };
        if again || tls.is_some() || !buffer.is_empty() {
            let message = match tls {
                Some(_) => "request for encryption on a connection that is encrypted",
                None => "received unencrypted data after SSL request",
            };
            return Err(violation(message));
        }
        match shared.tls.current().filter(|_| packet == Startup::Ssl) {
            None => stream.write_all(wire::TLS_REFUSED).await?,
            Some(acceptor) => {
                stream.write_all(wire::TLS_ACCEPTED).await?;
                tls = Some(accept_tls(stream, &acceptor, shared, Vec::new()).await?);
            }
        }
    }
}

/// TLS from the first byte, to which only PostgreSQL's name in ALPN is an answer: another protocol's
/// client may have been led here (`ProcessSSLStartup` in backend_startup.c).
async fn direct_tls(
    stream: &mut Stream,
    buffer: &mut Buffer,
    shared: &Shared,
) -> Result<ClientFacts, LoginError> {
    let acceptor =
        shared.tls.current().ok_or_else(|| violation("received a TLS handshake, and TLS is off"))?;
    let facts = accept_tls(stream, &acceptor, shared, buffer.take()).await?;
    if stream.alpn() != Some(wire::ALPN) {
        return Err(violation("direct TLS connection without ALPN protocol \"postgresql\""));
    }
    Ok(facts)
}

/// A client whose handshake fails has been told so by TLS.
async fn accept_tls(
    stream: &mut Stream,
    acceptor: &Acceptor,
    shared: &Shared,
    ahead: Vec<u8>,
) -> Result<ClientFacts, LoginError> {
    let accepted = stream.accept_tls(acceptor, &shared.tls.metrics, ahead).await;
    Ok(accepted.inspect_err(|error| {
        tracing::info!(peer = ?stream.peer(), %error, "TLS handshake failed");
    })?)
}

fn without_tls() -> Refusal {
    let message = "connections without TLS are not allowed";
    let refusal = Refusal::new(Reason::Auth, SqlState::INVALID_AUTHORIZATION, message);
    refusal.hint("connect with sslmode=require or a stricter one")
}

fn violation(message: &'static str) -> LoginError {
    LoginError::Refused(Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, message))
}

fn startup_refusal(error: &StartupError) -> Refusal {
    let state = match error {
        StartupError::Version(..) => SqlState::FEATURE_NOT_SUPPORTED,
        StartupError::NoUser => SqlState::INVALID_AUTHORIZATION,
        StartupError::Replication(_) => SqlState::INVALID_PARAMETER_VALUE,
        StartupError::Option(_) | StartupError::OptionValue(_) => SqlState::SYNTAX_ERROR,
        StartupError::Length | StartupError::Layout | StartupError::Encoding => SqlState::PROTOCOL_VIOLATION,
    };
    let refusal = Refusal::new(Reason::Protocol, state, error.to_string());
    match error {
        StartupError::Replication(_) => {
            refusal.hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")
        }
        _ => refusal,
    }
}

/// The database is looked for after the password, so that names are not told to strangers.
fn greet(
    parameters: StartupParameters,
    latest: &Latest,
    peer: Option<SocketAddr>,
    claim: &Claim,
) -> Result<LoggedIn, Refusal> {
    let shared = latest.load();
    let database = database_of(&parameters, &shared)?;
    let cancel = registered(&parameters, &shared)?;
    let places = places(&parameters.user, database, &shared)?;
    let pools = pools_of(&parameters.user, database, claim, &shared)?;
    let (mut startup, mut unchecked, mut application_name) = (Settings::default(), false, None);
    let mut position = None;
    for (name, value) in parameters.settings {
        if name == position::NAME {
            position = Some(value);
            continue;
        }
        if name == "client_encoding" {
            if encoding::is_utf8(&value) {
                continue;
            }
            if !encoding::is_served(&value) {
                return Err(encoding::refusal(&value));
            }
        }
        startup.set(Assignment::of_value(&name, &value));
        if name == "application_name" {
            application_name = Some(value);
        } else {
            unchecked = true;
        }
    }
    let of_user = shared.users.get(&parameters.user);
    let (pool_mode, consistency) =
        (of_user.and_then(|it| it.pool_mode), of_user.and_then(|it| it.consistency));
    let (database_name, user) = pools.names(database, &parameters.user);
    let (startup, application_name) = pools.share(startup, application_name);
    let record = shared.sessions.register(Identity {
        database: database_name,
        user,
        peer,
        pid: cancel.pid(),
        application_name: application_name.clone(),
    });
    // Who came too late for the call of a reload or of the end calls itself.
    if latest.load().version != shared.version || *shared.stopping.borrow() {
        record.call();
    }
    Ok(LoggedIn {
        pool_mode: pool_mode.unwrap_or(database.pool_mode),
        consistency,
        database: database.clone(),
        shared: shared.clone(),
        record,
        startup,
        pools,
        places,
        cancel,
        entry: Box::new(Entry { application_name, unchecked, position, ..Entry::default() }),
    })
}

/// `limits.clients_max` is reached.
pub fn too_many(shared: &Shared) -> Refusal {
    shared.hits.hit(Limit::Clients);
    Refusal::new(Reason::Limit, SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
}

pub(super) fn database_of<'a>(
    parameters: &StartupParameters,
    shared: &'a Shared,
) -> Result<&'a Arc<Database>, Refusal> {
    let Some(database) = shared.databases.get(&parameters.database) else {
        let message = format!("database \"{}\" does not exist", parameters.database);
        return Err(Refusal::new(Reason::Auth, SqlState::INVALID_CATALOG_NAME, message));
    };
    if database.traffic.is_disabled() {
        let message = format!("database \"{}\" is not currently accepting connections", database.name);
        return Err(Refusal::new(Reason::Limit, SqlState("55000"), message));
    }
    Ok(database)
}

fn visit(
    parameters: StartupParameters,
    latest: &Latest,
    shared: &Shared,
    peer: Option<SocketAddr>,
) -> Result<visitor::Place, Refusal> {
    let cancel = registered(&parameters, shared)?;
    visitor::let_in(parameters, latest, peer, cancel)
}

/// Under a key as long as the client takes.
pub(super) fn registered(
    parameters: &StartupParameters,
    shared: &Shared,
) -> Result<cancel::Registered, Refusal> {
    let random: [u8; 36] = random()?;
    let (number, secret) = random.split_at(4);
    let number = number.iter().fold(0, |number, it| number << 8 | u32::from(*it));
    let secret = &secret[..cancel::secret_bytes(parameters.takes_long_keys())];
    Ok(shared.cancels.register(number, secret))
}

/// With the words of PostgreSQL's own limits (`InitializeSessionUserId` in miscinit.c, `CheckMyDatabase` in
/// postinit.c), and in their order.
pub(super) fn places(
    user: &str,
    database: &Database,
    shared: &Shared,
) -> Result<[Option<quota::Place>; 2], Refusal> {
    let full = |limit, message: String| {
        shared.hits.hit(limit);
        Refusal::new(Reason::Limit, SqlState::TOO_MANY_CONNECTIONS, message)
    };
    let of_user = match shared.users.get(user).map(|it| it.clients.take()) {
        Some(None) => {
            return Err(full(Limit::UserClients, format!("too many connections for role \"{user}\"")));
        }
        place => place.flatten(),
    };
    let of_database = database.clients.take().ok_or_else(|| {
        full(Limit::DatabaseClients, format!("too many connections for database \"{}\"", database.name))
    })?;
    Ok([of_user, Some(of_database)])
}

pub(super) fn pools_of(
    user: &str,
    database: &Database,
    claim: &Claim,
    shared: &Shared,
) -> Result<Arc<UserPools>, Refusal> {
    let pools = match (claim.found, &claim.credentials) {
        (true, Some(it)) => database.pools.found(user, it, Instant::now()),
        _ => database.pools.get(user),
    };
    pools.ok_or_else(|| {
        shared.hits.hit(Limit::FoundUsers);
        let message = format!("too many users of database \"{}\" are connected", database.name);
        Refusal::new(Reason::Limit, SqlState::TOO_MANY_CONNECTIONS, message)
            .hint("raise auth_query_users_max in the configuration of keyway, or list users there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SessionRecord;

    /// What each idle client costs first of all (docs/performance.md): what is large is boxed where it is used.
    #[test]
    fn a_session_at_rest_is_small() {
        fn bytes<F>(_: impl FnOnce(Stream, Arc<Latest>, Arc<dyn Console>, quota::Place, bool) -> F) -> usize {
            size_of::<F>()
        }
        let sizes = [bytes(serve), size_of::<Session>(), size_of::<SessionRecord>()];
        // With what tokio and an `Arc` put in front of them, these are the allocator's 384, 512 and 320.
        assert!(sizes[0] <= 280 && sizes[1] <= 512 && sizes[2] <= 304, "task, session and record: {sizes:?}");
    }
}

//! One server connection: connect, log in, send, receive. Knows what its server holds (statements,
//! settings, what is owed), and nothing of who uses it.

mod cancel;
mod holder;
mod question;
mod record;

pub use cancel::{CancelEnd, CancelTarget};
pub use holder::{Holder, Holders, Sender};
pub use question::{QuestionError, Row};
pub use record::ServerRecord;

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::auth::{self, Credentials, ServerChannel, ServerLogin};
use crate::config::ServerAuth;
use crate::net::{self, Buffer, Connector, Connectors, DialError, Dialled, Encryption, ReadError, Stream};
use crate::proto::{Pipeline, ServerStatements, Settings, StatementBounds};
use crate::wire::{self, BackendTag, CancelKey};

/// A login message longer than this is not PostgreSQL's.
const LOGIN_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The parameter that tells (manual, "Asynchronous Operations" of the protocol).
pub const IN_HOT_STANDBY: &str = "in_hot_standby";

/// Everything that a new connection to one server needs. Where the server stands in the configuration is no
/// part of it: connections outlive a reload that moves it.
#[derive(Clone, Debug)]
pub struct BackendSpec {
    pub host: Arc<str>,
    pub port: u16,
    pub user: Arc<str>,
    pub credentials: Arc<Credentials>,
    pub server_auth: ServerAuth,
    pub tls: Arc<Connectors>,
    pub database: Arc<str>,
    /// Of connections that Keyway uses itself.
    pub application_name: Option<&'static str>,
    pub connect_timeout: Duration,
    pub message_bytes_max: usize,
    pub statements: StatementBounds,
    /// Where its connections are known by their process.
    pub holders: Holders,
}

pub struct Backend {
    pub stream: Stream,
    pub pipeline: Pipeline,
    pub statements: ServerStatements,
    /// What clients have set on it.
    pub settings: Settings,
    /// Made once, so that each request has it for a count of references.
    pub cancel: Arc<CancelTarget>,
    /// The client whose writes it has had last.
    pub holder: Holder,
    /// Whether the server is a standby, as it last told itself (PostgreSQL 14 and later).
    pub in_hot_standby: Option<bool>,
    /// Parameters that the server reported at login, in order.
    pub parameters: Arc<[(String, String)]>,
    pub connected_at: Instant,
    /// When it is too old, which its pool sets once it has logged in. `None` is never.
    pub expires_at: Option<Instant>,
    /// When it had logged in: its server has not started anew since, as long as it lives.
    pub ready_at: Instant,
    pub idle_since: Instant,
    /// How it is seen from outside.
    pub record: Arc<ServerRecord>,
}

impl BackendSpec {
    /// Whether a connection made for one is as good as one made for the other. All fields have to be named, so
    /// that a new one cannot be left out.
    pub fn is_same(&self, other: &BackendSpec) -> bool {
        let BackendSpec {
            host,
            port,
            user,
            credentials,
            server_auth,
            tls,
            database,
            application_name,
            connect_timeout,
            message_bytes_max,
            statements,
            holders,
        } = self;
        *host == other.host
            && *port == other.port
            && *user == other.user
            && Arc::ptr_eq(credentials, &other.credentials)
            && *server_auth == other.server_auth
            && Arc::ptr_eq(tls, &other.tls)
            && *database == other.database
            && *application_name == other.application_name
            && *connect_timeout == other.connect_timeout
            && *message_bytes_max == other.message_bytes_max
            && *statements == other.statements
            && holders.is_same(&other.holders)
    }
}

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Tls(DialError),
    #[error("{0}")]
    Login(#[from] auth::LoginFailure),
    /// The server's own error; `bytes` are the whole ErrorResponse.
    #[error("{message} (SQLSTATE {state})")]
    Refused { state: String, message: String, bytes: Box<[u8]> },
    #[error("server broke the protocol during login: {0}")]
    Protocol(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl From<ReadError> for ConnectError {
    fn from(error: ReadError) -> ConnectError {
        match error {
            ReadError::Io(error) => ConnectError::Io(error),
            ReadError::Closed => ConnectError::Io(std::io::ErrorKind::ConnectionAborted.into()),
            other => ConnectError::Protocol(other.to_string()),
        }
    }
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> ConnectError {
        match error {
            DialError::Io(error) => ConnectError::Io(error),
            other => ConnectError::Tls(other),
        }
    }
}

impl ConnectError {
    /// `connect_timeout` was over, by the time of the whole or by that of the socket alone.
    pub fn is_timeout(&self) -> bool {
        match self {
            ConnectError::Timeout(_) => true,
            ConnectError::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// The server is there and takes no more connections (manual, "PostgreSQL Error Codes", class 53).
    pub fn is_full(&self) -> bool {
        matches!(self, ConnectError::Refused { state, .. } if state.starts_with("53"))
    }

    /// Whether the same without TLS, or with it, might do better. A server that has rules for both
    /// answers 28000 to what no rule allows (`ClientAuthentication` in auth.c).
    fn is_over_tls(&self) -> bool {
        match self {
            ConnectError::Tls(_) => true,
            // An alert that comes behind the handshake, such as one against our certificate.
            ConnectError::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
            ConnectError::Refused { state, .. } => state == "28000",
            _ => false,
        }
    }

    /// Whether an older version of the protocol might do better: servers from before the end of 2017, and
    /// poolers, refuse a minor version that they do not know in place of naming theirs.
    fn is_over_version(&self) -> bool {
        matches!(self, ConnectError::Refused { state, .. } if state == "0A000" || state == "08P01")
    }
}

/// Connects and logs in, all within `spec.connect_timeout`.
pub async fn connect(spec: &BackendSpec, now: Instant) -> Result<Backend, ConnectError> {
    // A client's own values follow as settings.
    let mut settings = vec![("client_encoding", "UTF8")];
    settings.extend(spec.application_name.map(|it| ("application_name", it)));
    connect_with(spec, &settings, now).await
}

/// As `connect`, with these parameters in the startup packet besides user and database.
pub async fn connect_with(
    spec: &BackendSpec,
    settings: &[(&str, &str)],
    now: Instant,
) -> Result<Backend, ConnectError> {
    match tokio::time::timeout(spec.connect_timeout, try_each(spec, settings, now)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(spec.connect_timeout)),
    }
}

/// With and without TLS in the order of the mode, until one way is not turned down over TLS.
async fn try_each(
    spec: &BackendSpec,
    settings: &[(&str, &str)],
    now: Instant,
) -> Result<Backend, ConnectError> {
    let connector = spec.tls.current();
    let mut failure = None;
    for encryption in connector.attempts() {
        let mut logged_in = log_in(spec, settings, &connector, *encryption, wire::MINOR_MAX, now).await;
        if logged_in.as_ref().is_err_and(ConnectError::is_over_version) {
            logged_in = log_in(spec, settings, &connector, *encryption, 0, now).await;
        }
        match logged_in {
            // What is told in the end is what became of TLS, which was meant or insisted on.
            Err(error) if error.is_over_tls() => {
                if failure.is_none() || *encryption != Encryption::None {
                    failure = Some(error);
                }
            }
            result => return result,
        }
    }
    Err(failure.unwrap_or(ConnectError::Timeout(spec.connect_timeout)))
}

async fn log_in(
    spec: &BackendSpec,
    settings: &[(&str, &str)],
    connector: &Arc<Connector>,
    encryption: Encryption,
    minor: u16,
    now: Instant,
) -> Result<Backend, ConnectError> {
    let address = (&*spec.host, spec.port);
    let dialled = net::dial(address, connector, encryption, spec.connect_timeout).await?;
    let Dialled { mut stream, end_point } = dialled;
    let mut out = Vec::new();
    wire::startup_message(&mut out, minor, &spec.user, &spec.database, settings);
    stream.write_all(&out).await?;
    let mut buffer = Buffer::default();
    let mut nonce = [0; auth::NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(std::io::Error::from)?;
    let channel = ServerChannel { is_tls: stream.is_tls(), end_point };
    let mut login = ServerLogin::new(&spec.user, &spec.credentials, spec.server_auth, channel, nonce);
    // A server that sends no key has nothing to be cancelled by: no process has number 0.
    let (mut parameters, mut key) = (Vec::new(), CancelKey { pid: 0, secret: Box::new([0; 4]) });
    loop {
        let (tag, total) = net::read_message(&mut stream, &mut buffer, LOGIN_MESSAGE_BYTES_MAX).await?;
        let message = &buffer.filled()[..total];
        let malformed = |_| ConnectError::Protocol(format!("malformed message of type 0x{tag:02x}"));
        match BackendTag(tag) {
            BackendTag::AUTHENTICATION => {
                out.clear();
                login.answer(message, &mut out).await?;
                stream.write_all(&out).await?;
            }
            BackendTag::PARAMETER_STATUS => {
                let (name, value) = wire::parameter(message).map_err(malformed)?;
                parameters.push((name.to_owned(), value.to_owned()));
            }
            BackendTag::BACKEND_KEY_DATA => key = wire::backend_key(message).map_err(malformed)?,
            BackendTag::ERROR => {
                let fields = wire::error_fields(message).map_err(malformed)?;
                let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
                return Err(ConnectError::Refused {
                    state: text(fields.state),
                    message: text(fields.message),
                    bytes: message.into(),
                });
            }
            // An older version than was asked for is as good: its keys are shorter, and that is all.
            BackendTag::NOTICE | BackendTag::NEGOTIATE_VERSION => {}
            BackendTag::READY_FOR_QUERY => break,
            BackendTag(tag) => {
                return Err(ConnectError::Protocol(format!("message type 0x{tag:02x} during login")));
            }
        }
        buffer.consume(total);
    }
    let record = Arc::new(ServerRecord::new(key.pid, now, &stream));
    stream.bind(record.tie.clone());
    let tls = stream.is_tls().then(|| connector.clone());
    let target = CancelTarget { host: spec.host.clone(), port: spec.port, key, tls };
    Ok(Backend {
        stream,
        pipeline: Pipeline::new(spec.message_bytes_max),
        statements: ServerStatements::new(spec.statements),
        settings: Settings::default(),
        holder: spec.holders.register((spec.host.clone(), spec.port), target.key.pid),
        cancel: Arc::new(target),
        in_hot_standby: in_hot_standby(&parameters),
        parameters: parameters.into(),
        connected_at: now,
        expires_at: None,
        ready_at: Instant::now(),
        idle_since: now,
        record,
    })
}

fn in_hot_standby(parameters: &[(String, String)]) -> Option<bool> {
    parameters.iter().find(|it| it.0 == IN_HOT_STANDBY).map(|it| it.1 == "on")
}

impl Backend {
    /// Says goodbye, so that the server does not log a lost connection. Best effort.
    pub async fn close(mut self) {
        let mut out = Vec::new();
        wire::terminate(&mut out);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.write_all(&out)).await;
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Backend(pid {})", self.cancel.key.pid)
    }
}

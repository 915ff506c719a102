//! Passwords of users that the config does not list, asked of a server over a connection of its own.
//!
//! A name is looked up once for all who log in with it at a time, and the answer is believed for
//! `auth_query_lifetime`: also the answer that there is no such user, so that both take the same way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::auth::{Credentials, Derivation};
use crate::backend::{self, Backend, BackendSpec, ConnectError, QuestionError};
use crate::base::{Reason, Refusal, SqlState};
use crate::config::{Auth, AuthQuery, Secret};
use crate::metrics::{Limit, LimitHits};
use crate::wire;

/// A wrong password makes the next login ask again, but a guesser no more often than this.
const REPEAT_MIN: Duration = Duration::from_secs(1);
/// What is not named with its schema is PostgreSQL's own, whatever the role's settings say.
const FIXED_PATH: &str = "SET search_path = pg_catalog";

pub struct UserLookup {
    query: AuthQuery,
    /// Of the first shard: passwords are the same on all its servers.
    servers: Vec<BackendSpec>,
    /// What ends an attempt to connect that takes too long.
    connect_limit: Limit,
    /// The server that answered last.
    server: AtomicUsize,
    connection: tokio::sync::Mutex<Option<Backend>>,
    answers: Mutex<HashMap<String, Arc<Answer>>>,
    derivation: Derivation,
    hits: LimitHits,
}

/// Locked while the server is asked.
type Answer = tokio::sync::Mutex<Option<Known>>;

struct Known {
    at: Instant,
    credentials: Option<Arc<Credentials>>,
}

#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Question(#[from] QuestionError),
    #[error("the answer to auth_query makes no sense: {0}")]
    Senseless(&'static str),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl UserLookup {
    /// `servers` are logged in to as `query.user`; at least one.
    pub fn new(
        query: AuthQuery,
        mut servers: Vec<BackendSpec>,
        derivation: Derivation,
        hits: LimitHits,
    ) -> UserLookup {
        // One that is gone must leave time to ask the next.
        let share = query.timeout / servers.len().max(1) as u32;
        let is_own = servers.iter().any(|it| share <= it.connect_timeout);
        for it in &mut servers {
            it.connect_timeout = it.connect_timeout.min(share);
            it.application_name = Some("keyway auth_query");
        }
        UserLookup {
            query,
            connect_limit: if is_own { Limit::LookupTime } else { Limit::ConnectTime },
            servers,
            server: AtomicUsize::new(0),
            connection: tokio::sync::Mutex::default(),
            answers: Mutex::default(),
            derivation,
            hits,
        }
    }

    /// Whether its answers are those that the other one would get.
    pub fn is_same(&self, other: &UserLookup) -> bool {
        self.query == other.query
            && self.servers.len() == other.servers.len()
            && self.servers.iter().zip(&other.servers).all(|(a, b)| a.is_same(b))
    }

    pub fn method(&self) -> Auth {
        self.query.method
    }

    /// The credentials of `user`; `None` where the server knows none. `salt` is random, `known` what the
    /// user's pools were made with: kept where the password is still the same, with the keys learned.
    pub async fn find(
        &self,
        user: &str,
        salt: [u8; 16],
        known: Option<Arc<Credentials>>,
    ) -> Result<Option<Arc<Credentials>>, Refusal> {
        let answer = self.answer(user);
        let mut answer = answer.lock().await;
        if let Some(it) = answer.as_ref().filter(|it| it.at.elapsed() < self.query.lifetime) {
            return Ok(it.credentials.clone());
        }
        let asked = match tokio::time::timeout(self.query.timeout, self.ask(user)).await {
            Ok(it) => it,
            Err(_) => {
                self.hits.hit(Limit::LookupTime);
                Err(LookupError::Timeout(self.query.timeout))
            }
        };
        let secret = match asked {
            Ok(it) => it,
            Err(error) => {
                tracing::warn!(user, %error, "auth_query failed");
                return Err(Refusal::new(
                    Reason::NoServer,
                    SqlState::CONNECTION_FAILURE,
                    "cannot look up user",
                )
                .hint("the log of keyway says why; try again later"));
            }
        };
        let before = answer.take().and_then(|it| it.credentials);
        let kept = [known, before].into_iter().flatten().find(|it| it.secret() == secret.as_ref());
        let credentials = secret.map(|secret| {
            kept.unwrap_or_else(|| Arc::new(Credentials::new(Some(secret), salt, self.derivation.clone())))
        });
        *answer = Some(Known { at: Instant::now(), credentials: credentials.clone() });
        Ok(credentials)
    }

    /// The password did not fit: it may have been changed since.
    pub fn doubt(&self, user: &str) {
        let answer = self.answers.lock().get(user).cloned();
        if let Some(answer) = answer
            && let Ok(mut answer) = answer.try_lock()
            && answer.as_ref().is_some_and(|it| it.at.elapsed() >= REPEAT_MIN)
        {
            *answer = None;
        }
    }

    fn answer(&self, user: &str) -> Arc<Answer> {
        let mut answers = self.answers.lock();
        if let Some(it) = answers.get(user) {
            return it.clone();
        }
        if answers.len() >= self.query.users_max {
            // What nobody waits for right now is only asked again.
            answers.retain(|_, it| Arc::strong_count(it) > 1);
        }
        let answer = Arc::new(Answer::default());
        answers.insert(user.to_owned(), answer.clone());
        answer
    }

    async fn ask(&self, user: &str) -> Result<Option<Secret>, LookupError> {
        let mut connection = self.connection.lock().await;
        // Taken out, so that one on which an answer was given up is not used again.
        if let Some(mut backend) = connection.take() {
            match self.ask_on(&mut backend, user).await {
                Err(LookupError::Question(QuestionError::Lost(_))) => {}
                answered => {
                    *connection = Some(backend);
                    return answered;
                }
            }
        }
        let mut backend = self.connect().await?;
        let answered = self.ask_on(&mut backend, user).await?;
        *connection = Some(backend);
        Ok(answered)
    }

    async fn connect(&self) -> Result<Backend, LookupError> {
        let (first, count) = (self.server.load(Ordering::Relaxed), self.servers.len());
        let mut failure = LookupError::Senseless("no server");
        for index in (first..first + count).map(|it| it % count) {
            match backend::connect(&self.servers[index], Instant::now()).await {
                Ok(mut backend) => {
                    self.server.store(index, Ordering::Relaxed);
                    let mut out = Vec::new();
                    wire::query(&mut out, FIXED_PATH);
                    backend.rows(&out).await?;
                    return Ok(backend);
                }
                Err(error) => {
                    if error.is_timeout() {
                        self.hits.hit(self.connect_limit);
                    }
                    failure = error.into();
                }
            }
        }
        Err(failure)
    }

    async fn ask_on(&self, backend: &mut Backend, user: &str) -> Result<Option<Secret>, LookupError> {
        let mut out = Vec::new();
        // The second row says that there is more than one.
        wire::ask(&mut out, &self.query.text, &[user], 2);
        let rows = backend.rows(&out).await?;
        let row = match rows.as_slice() {
            [] => return Ok(None),
            [row] => row,
            _ => return Err(LookupError::Senseless("more than one row")),
        };
        let [name, password, ..] = row.as_slice() else {
            return Err(LookupError::Senseless("less than two columns"));
        };
        if name.as_deref() != Some(user) {
            return Err(LookupError::Senseless("another user's name"));
        }
        let Some(password) = password.as_deref() else { return Ok(None) };
        let secret = Secret::parse(password);
        match (&secret, self.query.method) {
            (None, _) => tracing::warn!(user, "auth_query gave a malformed SCRAM verifier"),
            (Some(Secret::Md5(_)), Auth::Scram) => {
                tracing::warn!(user, "auth_query gave an MD5 digest, and auth_query_method is \"scram\"");
            }
            _ => {}
        }
        Ok(secret)
    }
}

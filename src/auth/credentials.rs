//! One user's password in whichever form it is known, and the keys that were made of it or learned.
//!
//! A stored SCRAM verifier checks clients but logs in nowhere: what a server wants to see is the
//! ClientKey, of which the verifier has only the hash. A client that logs in shows it (RFC 5802,
//! section 3: ClientKey = ClientProof XOR ClientSignature), and from then on Keyway can log in to
//! every server that has the same verifier.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::derivation::Derivation;
use super::scram::{ITERATIONS, Key, ScramKeys, Verifier};
use super::server_login::LoginFailure;
use crate::config::{Password, ScramVerifier, Secret};

/// Servers have a salt each, so one user's keys are as many as there are servers with verifiers of
/// their own. More than these are derived again.
const KEYS_MAX: usize = 64;
/// A second of work; a server that asks for more is not obeyed.
const ITERATIONS_MAX: u32 = 1_000_000;

pub struct Credentials {
    secret: Option<Secret>,
    /// Of our own verifier, where the secret is a plain password.
    salt: Arc<[u8]>,
    verifier: OnceCell<Verifier>,
    /// By salt and iterations, the longest known first.
    keys: Mutex<VecDeque<KnownKeys>>,
    /// Held while keys are derived, so that a pool's logins at one time derive once.
    deriving: tokio::sync::Mutex<()>,
    derivation: Derivation,
}

struct KnownKeys {
    salt: Arc<[u8]>,
    iterations: u32,
    keys: Arc<ScramKeys>,
}

impl Credentials {
    /// `salt` is random: that of the verifier which is made where the secret is a plain password.
    pub fn new(secret: Option<Secret>, salt: [u8; 16], derivation: Derivation) -> Credentials {
        Credentials {
            secret,
            salt: salt.as_slice().into(),
            verifier: OnceCell::new(),
            keys: Mutex::default(),
            deriving: tokio::sync::Mutex::default(),
            derivation,
        }
    }

    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// What checks a client's proof; `None` where the secret has no such thing. Derived at the first
    /// call.
    pub async fn verifier(&self) -> Option<Verifier> {
        match &self.secret {
            Some(Secret::Scram(it)) => Some(Verifier::stored(it)),
            Some(Secret::Plain(password)) => {
                let made = self.verifier.get_or_try_init(async || {
                    let salted = self.salted(password, &self.salt, ITERATIONS).await?;
                    Ok::<_, LoginFailure>(Verifier::of_keys(&self.salt, ITERATIONS, &ScramKeys::new(&salted)))
                });
                made.await.ok().cloned()
            }
            Some(Secret::Md5(_)) | None => None,
        }
    }

    /// Whether a password in clear text is the user's.
    pub async fn accepts(&self, user: &str, shown: &str) -> bool {
        use subtle::ConstantTimeEq;
        match &self.secret {
            Some(Secret::Plain(it)) => it.reveal().as_bytes().ct_eq(shown.as_bytes()).into(),
            Some(Secret::Md5(it)) => {
                super::md5::digest(shown, user).as_bytes().ct_eq(it.digits().as_bytes()).into()
            }
            Some(Secret::Scram(verifier)) => self.matches(verifier, shown).await,
            None => false,
        }
    }

    /// A password in clear text gives the keys as a proof does.
    async fn matches(&self, verifier: &ScramVerifier, shown: &str) -> bool {
        let salted = self.salted(&Password::new(shown), &verifier.salt, verifier.iterations).await;
        let Ok(salted) = salted else { return false };
        let keys = ScramKeys::new(&salted);
        let is_right = Verifier::stored(verifier).accepts(keys.client());
        if is_right {
            self.remember(verifier.salt.clone(), verifier.iterations, Arc::new(keys));
        }
        is_right
    }

    /// Takes the ClientKey of a proof that was right.
    pub fn learn(&self, client_key: Key) {
        let Some(Secret::Scram(it)) = &self.secret else { return };
        if self.known(&it.salt, it.iterations).is_none() {
            let keys = ScramKeys::of_parts(client_key, it.server_key);
            self.remember(it.salt.clone(), it.iterations, Arc::new(keys));
        }
    }

    /// Keys for a server whose verifier has this salt.
    pub async fn keys_for(&self, salt: &[u8], iterations: u32) -> Result<Arc<ScramKeys>, LoginFailure> {
        if let Some(it) = self.known(salt, iterations) {
            return Ok(it);
        }
        match &self.secret {
            Some(Secret::Plain(password)) => {
                let _one_at_a_time = self.deriving.lock().await;
                if let Some(it) = self.known(salt, iterations) {
                    return Ok(it);
                }
                let salt: Arc<[u8]> = salt.into();
                let keys = Arc::new(ScramKeys::new(&self.salted(password, &salt, iterations).await?));
                self.remember(salt, iterations, keys.clone());
                Ok(keys)
            }
            Some(Secret::Scram(it)) if *it.salt == *salt && it.iterations == iterations => {
                Err(LoginFailure::NotLearned)
            }
            Some(Secret::Scram(_)) => Err(LoginFailure::OtherVerifier),
            Some(Secret::Md5(_)) => Err(LoginFailure::OnlyMd5),
            None => Err(LoginFailure::NoPassword),
        }
    }

    async fn salted(
        &self,
        password: &Password,
        salt: &Arc<[u8]>,
        iterations: u32,
    ) -> Result<Key, LoginFailure> {
        if iterations > ITERATIONS_MAX {
            return Err(LoginFailure::Iterations(iterations));
        }
        let derived = self.derivation.salted_password(password, salt.clone(), iterations).await;
        derived.ok_or(LoginFailure::Ending)
    }

    fn known(&self, salt: &[u8], iterations: u32) -> Option<Arc<ScramKeys>> {
        let keys = self.keys.lock();
        let mut fitting = keys.iter().filter(|it| *it.salt == *salt && it.iterations == iterations);
        fitting.next().map(|it| it.keys.clone())
    }

    fn remember(&self, salt: Arc<[u8]>, iterations: u32, keys: Arc<ScramKeys>) {
        let mut known = self.keys.lock();
        known.truncate(KEYS_MAX - 1);
        known.push_front(KnownKeys { salt, iterations, keys });
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({:?})", self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::proof_of;
    use super::*;

    fn credentials(secret: &str) -> Credentials {
        Credentials::new(Secret::parse(secret), [5; 16], Derivation::new(2))
    }

    #[tokio::test]
    async fn a_proof_opens_the_servers_with_the_same_verifier() {
        let verifier = Verifier::of_password("pencil", [3; 16]);
        let stored = credentials(&verifier.text());
        assert_eq!(stored.keys_for(&[3; 16], ITERATIONS).await.err(), Some(LoginFailure::NotLearned));
        let client_key = proof_of(stored.verifier().await.unwrap(), "pencil").unwrap();
        stored.learn(client_key);
        let keys = stored.keys_for(&[3; 16], ITERATIONS).await.unwrap();
        let derived = credentials("pencil").keys_for(&[3; 16], ITERATIONS).await.unwrap();
        assert_eq!((keys.client(), keys.server()), (derived.client(), derived.server()));
        for (salt, iterations) in [([4; 16], ITERATIONS), ([3; 16], ITERATIONS + 1)] {
            assert_eq!(stored.keys_for(&salt, iterations).await.err(), Some(LoginFailure::OtherVerifier));
        }
    }

    #[tokio::test]
    async fn clear_text_is_checked_against_every_form_and_teaches_the_keys() {
        let verifier = Verifier::of_password("pencil", [3; 16]);
        let stored = credentials(&verifier.text());
        for it in [&credentials("pencil"), &credentials("md51b42fc6a0a1b3b2cd9b6b1fa4ec28d50"), &stored] {
            assert!(!it.accepts("user", "pen").await);
        }
        assert!(credentials("pencil").accepts("user", "pencil").await);
        let md5 = format!("md5{}", super::super::md5::digest("pencil", "user"));
        assert!(credentials(&md5).accepts("user", "pencil").await);
        assert!(stored.accepts("user", "pencil").await);
        assert!(stored.keys_for(&[3; 16], ITERATIONS).await.is_ok());
    }

    #[tokio::test]
    async fn logins_at_one_time_derive_once_and_no_server_orders_hours_of_work() {
        let plain = Arc::new(credentials("pencil"));
        let logins: Vec<_> = (0..8)
            .map(|_| {
                let plain = plain.clone();
                tokio::spawn(async move { plain.keys_for(&[9; 16], ITERATIONS).await.unwrap() })
            })
            .collect();
        let mut keys = Vec::new();
        for login in logins {
            keys.push(login.await.unwrap());
        }
        assert!(keys.iter().all(|it| Arc::ptr_eq(it, &keys[0])));
        let much = plain.keys_for(&[9; 16], u32::MAX).await.err();
        assert_eq!(much, Some(LoginFailure::Iterations(u32::MAX)));
    }
}

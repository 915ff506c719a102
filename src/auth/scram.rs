//! The server's side of SCRAM-SHA-256, as a pure exchange: two messages in, two out.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::ScramVerifier;

pub const METHOD: &str = "SCRAM-SHA-256";
/// With channel binding.
pub const METHOD_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only type of channel binding that PostgreSQL has (RFC 5929, section 4).
pub const BINDING_TYPE: &str = "tls-server-end-point";
/// PostgreSQL's default (`scram_iterations`).
pub const ITERATIONS: u32 = 4096;
const KEY_BYTES: usize = 32;

pub type Key = [u8; KEY_BYTES];

/// What proves a password, without the password.
pub struct ScramKeys {
    client: Zeroizing<Key>,
    server: Zeroizing<Key>,
}

impl ScramKeys {
    pub fn new(salted_password: &Key) -> ScramKeys {
        ScramKeys::of_parts(mac(salted_password, &[b"Client Key"]), mac(salted_password, &[b"Server Key"]))
    }

    pub fn of_parts(client: Key, server: Key) -> ScramKeys {
        ScramKeys { client: Zeroizing::new(client), server: Zeroizing::new(server) }
    }

    pub fn client(&self) -> &Key {
        &self.client
    }

    pub fn server(&self) -> &Key {
        &self.server
    }

    pub fn stored(&self) -> Key {
        Sha256::digest(self.client()).into()
    }
}

/// What is kept of a password: enough to check a proof, not enough to log in elsewhere.
#[derive(Clone)]
pub struct Verifier {
    pub(super) salt: Arc<[u8]>,
    pub(super) iterations: u32,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
    /// For a user that does not exist: the exchange runs to its end and fails there, so that names
    /// cannot be told from wrong passwords (`mock_scram_secret` in auth-scram.c).
    hopeless: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScramError {
    #[error("malformed SCRAM message")]
    Malformed,
    /// Of the method that promises a binding, a message without one.
    #[error("malformed SCRAM message")]
    NotBound,
    /// And the other way round.
    #[error("malformed SCRAM message")]
    Bound,
    #[error("unsupported SCRAM channel-binding type")]
    BindingType,
    /// The client could bind and did not see that we can: somebody has taken the offer away.
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// The client sees another certificate than ours.
    #[error("SCRAM channel binding check failed")]
    OtherChannel,
    #[error("password authentication failed")]
    WrongPassword,
    #[error("server does not know the user's password")]
    WrongServer,
}

impl Verifier {
    pub fn of_keys(salt: &Arc<[u8]>, iterations: u32, keys: &ScramKeys) -> Verifier {
        let (stored_key, server_key) = (keys.stored(), *keys.server());
        Verifier { salt: salt.clone(), iterations, stored_key, server_key, hopeless: false }
    }

    pub fn stored(it: &ScramVerifier) -> Verifier {
        Verifier {
            salt: it.salt.clone(),
            iterations: it.iterations,
            stored_key: it.stored_key,
            server_key: it.server_key,
            hopeless: false,
        }
    }

    /// The same salt for the same name every time, as a real user would have.
    pub fn of_unknown_user(name: &str, secret: &[u8]) -> Verifier {
        let salt = mac(secret, &[name.as_bytes()])[..16].into();
        let key = [0; KEY_BYTES];
        Verifier { salt, iterations: ITERATIONS, stored_key: key, server_key: key, hopeless: true }
    }

    pub fn accepts(&self, client_key: &Key) -> bool {
        let stored_key: Key = Sha256::digest(client_key).into();
        bool::from(stored_key.ct_eq(&self.stored_key)) && !self.hopeless
    }
}

/// SASLprep maps what is not ASCII; a password that it refuses is used as it is, as PostgreSQL does.
fn normalized(password: &str) -> std::borrow::Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(std::borrow::Cow::Borrowed(password))
}

pub fn mac(key: &[u8], parts: &[&[u8]]) -> Key {
    // HMAC takes a key of any length, so this cannot fail; a zero key would only fail the login.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; KEY_BYTES] };
    parts.iter().for_each(|it| mac.update(it));
    mac.finalize().into_bytes().into()
}

/// Costs `iterations` rounds of HMAC, milliseconds: never on a thread that serves clients.
pub fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Key {
    let prepared = normalized(password);
    let password = prepared.as_bytes();
    let mut round = mac(password, &[salt, &1u32.to_be_bytes()]);
    let mut sum = round;
    for _ in 1..iterations {
        round = mac(password, &[&round]);
        sum.iter_mut().zip(round).for_each(|(to, from)| *to ^= from);
    }
    sum
}

pub fn xor(mut left: Key, right: &Key) -> Key {
    left.iter_mut().zip(right).for_each(|(to, from)| *to ^= from);
    left
}

/// How an exchange stands to the TLS connection that it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// There is none, or none that can be bound to, and so no offer of it.
    Unbindable,
    /// -PLUS was offered, and the client has chosen the method without.
    Declined,
    /// The client has chosen -PLUS; this is what it has to bind its proof to.
    Chosen(&'a [u8]),
}

/// ```text
/// client-first ──▶ start() ── server-first ──▶ client-final ──▶ finish() ── server-final
/// ```
pub struct Exchange {
    verifier: Verifier,
    /// What client-final must repeat: the GS2 header, and behind it what the proof is bound to.
    binding: Vec<u8>,
    is_bound: bool,
    nonce: String,
    /// client-first without its header, and server-first: what both sides sign.
    signed: String,
}

impl Exchange {
    /// Reads client-first and writes server-first. `entropy` makes our half of the nonce.
    pub fn start(
        verifier: Verifier,
        client_first: &[u8],
        entropy: [u8; 18],
        channel: Channel<'_>,
    ) -> Result<(Exchange, String), ScramError> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
        check_flag(flag, channel)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        if !authzid.is_empty() {
            return Err(ScramError::Malformed);
        }
        // The name in `n=` is ignored: the startup packet names the user (auth-scram.c).
        let mut fields = bare.split(',');
        let _user = fields.next().filter(|it| it.starts_with("n=")).ok_or(ScramError::Malformed)?;
        let client_nonce = fields.next().and_then(|it| it.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        let nonce = format!("{client_nonce}{}", BASE64.encode(entropy));
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let mut binding = text.as_bytes()[..text.len() - bare.len()].to_vec();
        let is_bound = if let Channel::Chosen(end_point) = channel {
            binding.extend_from_slice(end_point);
            true
        } else {
            false
        };
        let signed = format!("{bare},{server_first}");
        Ok((Exchange { verifier, binding, is_bound, nonce, signed }, server_first))
    }

    /// Checks client-final and writes server-final. The ClientKey comes out of a proof that is right.
    pub fn finish(self, client_final: &[u8]) -> Result<(String, Key), ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed)?;
        let (unproved, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut fields = unproved.split(',');
        let binding = fields.next().and_then(|it| it.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = fields.next().and_then(|it| it.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        let binding = BASE64.decode(binding).map_err(|_| ScramError::Malformed)?;
        let proof: Key =
            BASE64.decode(proof).ok().and_then(|it| it.try_into().ok()).ok_or(ScramError::Malformed)?;
        if binding != self.binding {
            return Err(if self.is_bound { ScramError::OtherChannel } else { ScramError::Malformed });
        }
        if nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let signed = [self.signed.as_bytes(), b",", unproved.as_bytes()];
        let client_key = xor(mac(&self.verifier.stored_key, &signed), &proof);
        if !self.verifier.accepts(&client_key) {
            return Err(ScramError::WrongPassword);
        }
        let reply = format!("v={}", BASE64.encode(mac(&self.verifier.server_key, &signed)));
        Ok((reply, client_key))
    }
}

/// Whether the GS2 flag goes with the method (RFC 5802, section 6; `read_client_first_message` in
/// auth-scram.c).
fn check_flag(flag: &str, channel: Channel<'_>) -> Result<(), ScramError> {
    match (flag, channel) {
        ("n", Channel::Unbindable | Channel::Declined) | ("y", Channel::Unbindable) => Ok(()),
        ("y", Channel::Declined) => Err(ScramError::Downgrade),
        ("n" | "y", Channel::Chosen(_)) => Err(ScramError::NotBound),
        _ => match (flag.strip_prefix("p="), channel) {
            (None, _) => Err(ScramError::Malformed),
            (Some(_), Channel::Unbindable | Channel::Declined) => Err(ScramError::Bound),
            (Some(BINDING_TYPE), Channel::Chosen(_)) => Ok(()),
            (Some(_), Channel::Chosen(_)) => Err(ScramError::BindingType),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::proof_of;
    use crate::config::Secret;

    fn login(verifier: Verifier, password: &str) -> Result<(), ScramError> {
        proof_of(verifier, password).map(drop)
    }

    #[test]
    fn a_stored_verifier_is_the_one_of_the_password() {
        // User and password of RFC 7677's example.
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let Some(Secret::Scram(stored)) = Secret::parse(text) else { panic!("no verifier") };
        assert_eq!(login(Verifier::stored(&stored), "pencil"), Ok(()));
        assert_eq!(login(Verifier::stored(&stored), "pen"), Err(ScramError::WrongPassword));
        assert_eq!(Verifier::stored(&stored).text(), text);
    }

    #[test]
    fn a_known_good_client_logs_in_with_the_right_password_only() {
        let verifier = Verifier::of_password("sécret", [3; 16]);
        assert_eq!(login(verifier.clone(), "sécret"), Ok(()));
        assert_eq!(login(verifier, "secret"), Err(ScramError::WrongPassword));
        let unknown = Verifier::of_unknown_user("who", b"server secret");
        assert_eq!(login(unknown, "sécret"), Err(ScramError::WrongPassword));
    }

    #[test]
    fn rubbish_is_malformed_and_never_a_panic() {
        let verifier = || Verifier::of_password("x", [3; 16]);
        for first in ["", "n", "n,,", "n,,r=abc", "p=tls-unique,,n=,r=abc", "n,a=x,n=,r=abc"] {
            let started = Exchange::start(verifier(), first.as_bytes(), [1; 18], Channel::Unbindable);
            assert!(started.is_err(), "{first}");
        }
        for last in ["", "c=biws", "c=biws,r=abc,p=AAAA", "c=!!,r=abc,p=AAAA"] {
            let started = Exchange::start(verifier(), b"n,,n=,r=abc", [1; 18], Channel::Unbindable);
            let (exchange, _) = started.unwrap();
            assert_eq!(exchange.finish(last.as_bytes()).map(drop), Err(ScramError::Malformed), "{last}");
        }
    }

    #[test]
    fn the_flag_has_to_go_with_the_method() {
        const PLUS: Channel<'_> = Channel::Chosen(b"hash");
        let check = |flag: &str, channel: Channel<'_>, want: Result<(), ScramError>| {
            let first = format!("{flag},,n=,r=abc");
            let verifier = Verifier::of_password("x", [3; 16]);
            let started = Exchange::start(verifier, first.as_bytes(), [1; 18], channel);
            assert_eq!(started.map(drop), want, "{flag} {channel:?}");
        };
        check("n", Channel::Unbindable, Ok(()));
        check("n", Channel::Declined, Ok(()));
        check("n", PLUS, Err(ScramError::NotBound));
        check("y", Channel::Unbindable, Ok(()));
        check("y", Channel::Declined, Err(ScramError::Downgrade));
        check("y", PLUS, Err(ScramError::NotBound));
        check("p=tls-server-end-point", Channel::Unbindable, Err(ScramError::Bound));
        check("p=tls-server-end-point", Channel::Declined, Err(ScramError::Bound));
        check("p=tls-server-end-point", PLUS, Ok(()));
        check("p=tls-unique", PLUS, Err(ScramError::BindingType));
        check("x", PLUS, Err(ScramError::Malformed));
    }

    #[test]
    fn a_proof_is_good_for_the_channel_that_it_is_bound_to() {
        use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
        for (theirs, want) in [(&b"hash"[..], Ok(())), (b"other", Err(ScramError::OtherChannel))] {
            let binding = ChannelBinding::tls_server_end_point(theirs.to_vec());
            let mut client = ScramSha256::new(b"pencil", binding);
            let verifier = Verifier::of_password("pencil", [3; 16]);
            let started = Exchange::start(verifier, client.message(), [1; 18], Channel::Chosen(b"hash"));
            let (exchange, first) = started.unwrap();
            client.update(first.as_bytes()).unwrap();
            match exchange.finish(client.message()) {
                Ok((last, _)) => {
                    client.finish(last.as_bytes()).unwrap();
                    assert_eq!(want, Ok(()));
                }
                Err(error) => assert_eq!(want, Err(error)),
            }
        }
    }
}

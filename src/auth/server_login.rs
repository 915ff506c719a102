//! Keyway proves who it is to a server: one step of the exchange per message of the server.

use thiserror::Error;

use super::credentials::Credentials;
use super::md5;
use super::proving::{Binding, Expected, Proving};
use super::scram::{METHOD, METHOD_PLUS, ScramError};
use crate::config::{Secret, ServerAuth};
use crate::net::EndPoint;
use crate::wire::{self, Authentication};

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoginFailure {
    #[error("server asks for a password and the configuration has none for this user")]
    NoPassword,
    #[error("server asks for authentication method {0}, which keyway does not speak to servers")]
    Method(String),
    #[error("server asks for authentication method {0}, which `server_auth` of this database does not allow")]
    NotAllowed(&'static str),
    #[error("server wants SCRAM-SHA-256 and of this user only an MD5 digest is known")]
    OnlyMd5,
    #[error("server wants the password and of this user only a stored verifier is known")]
    OnlyVerifier,
    #[error("no client has logged in yet whose proof could be passed on to the server")]
    NotLearned,
    #[error(
        "server's SCRAM verifier of this user is not the one that keyway has (salt or iterations differ)"
    )]
    OtherVerifier,
    #[error("server asks for {0} iterations of SCRAM")]
    Iterations(u32),
    /// It could not check one, so that somebody else has said so.
    #[error("server offers SCRAM-SHA-256-PLUS on a connection without TLS")]
    Offer,
    #[error("SCRAM exchange failed: {0}")]
    Scram(ScramError),
    #[error("server let keyway in before it had shown that it knows the user")]
    Unsigned,
    #[error("malformed authentication message")]
    Malformed,
    #[error("keyway is shutting down")]
    Ending,
}

/// ```text
/// Asked ──Sasl──▶ Started ──SaslContinue──▶ Proved ──SaslFinal──▶ Satisfied ──Ok──▶ in
///    └──── Ok, Md5, Cleartext ──────────────────────────────────────────────────────▲
/// ```
enum State {
    Asked,
    Started(Proving),
    Proved(Expected),
    Satisfied,
}

/// What a login runs on.
#[derive(Clone, Debug, Default)]
pub struct ServerChannel {
    pub is_tls: bool,
    /// What proofs can be bound to.
    pub end_point: Option<EndPoint>,
}

/// One login to one server.
pub struct ServerLogin<'a> {
    user: &'a str,
    credentials: &'a Credentials,
    allowed: ServerAuth,
    channel: ServerChannel,
    nonce: [u8; 18],
    state: State,
}

impl<'a> ServerLogin<'a> {
    /// `nonce` is random.
    pub fn new(
        user: &'a str,
        credentials: &'a Credentials,
        allowed: ServerAuth,
        channel: ServerChannel,
        nonce: [u8; 18],
    ) -> ServerLogin<'a> {
        ServerLogin { user, credentials, allowed, channel, nonce, state: State::Asked }
    }

    /// Answers one Authentication message: `Ok(true)` when the server is satisfied; else what to send
    /// is in `out`.
    pub async fn answer(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<bool, LoginFailure> {
        let asked = wire::authentication(message).map_err(|_| LoginFailure::Malformed)?;
        match (asked, std::mem::replace(&mut self.state, State::Asked)) {
            (Authentication::Ok, State::Asked | State::Satisfied) => return Ok(true),
            // A server without the verifier could say so to whatever it is sent.
            (Authentication::Ok, State::Started(_) | State::Proved(_)) => return Err(LoginFailure::Unsigned),
            (Authentication::Sasl(methods), State::Asked) => {
                self.state = State::Started(self.start(&methods, out)?);
            }
            (Authentication::SaslContinue(data), State::Started(proving)) => {
                let challenge = proving.challenged(data).map_err(LoginFailure::Scram)?;
                let keys = self.credentials.keys_for(&challenge.salt, challenge.iterations).await?;
                let (expected, text) = proving.prove(&challenge, &keys);
                wire::sasl_response(out, text.as_bytes());
                self.state = State::Proved(expected);
            }
            (Authentication::SaslFinal(data), State::Proved(expected)) => {
                expected.check(data).map_err(LoginFailure::Scram)?;
                self.state = State::Satisfied;
            }
            (Authentication::Md5(salt), State::Asked) => {
                wire::password(out, md5::answer(&self.digest()?, salt).as_bytes());
            }
            (Authentication::Cleartext, State::Asked) => self.tell(out)?,
            (Authentication::Other(code), State::Asked) => {
                return Err(LoginFailure::Method(format!("number {code}")));
            }
            _ => return Err(LoginFailure::Malformed),
        }
        Ok(false)
    }

    fn start(&self, methods: &[&[u8]], out: &mut Vec<u8>) -> Result<Proving, LoginFailure> {
        let offers = |it: &str| methods.contains(&it.as_bytes());
        let (method, binding) = match &self.channel {
            ServerChannel { is_tls: false, .. } if offers(METHOD_PLUS) => return Err(LoginFailure::Offer),
            ServerChannel { end_point: Some(it), .. } if offers(METHOD_PLUS) => {
                (METHOD_PLUS, Binding::To(it.clone()))
            }
            ServerChannel { end_point: Some(_), .. } => (METHOD, Binding::NotOffered),
            ServerChannel { end_point: None, .. } => (METHOD, Binding::Unable),
        };
        if !offers(method) {
            let offered = methods.iter().map(|it| String::from_utf8_lossy(it)).collect::<Vec<_>>();
            return Err(LoginFailure::Method(offered.join(", ")));
        }
        if !self.allowed.scram {
            return Err(LoginFailure::NotAllowed("scram-sha-256"));
        }
        let (proving, text) = Proving::start(self.nonce, binding);
        wire::sasl_initial(out, method, text.as_bytes());
        Ok(proving)
    }

    fn digest(&self) -> Result<String, LoginFailure> {
        if !self.allowed.md5 {
            return Err(LoginFailure::NotAllowed("md5"));
        }
        match self.credentials.secret() {
            Some(Secret::Plain(it)) => Ok(md5::digest(it.reveal(), self.user)),
            Some(Secret::Md5(it)) => Ok(it.digits().to_owned()),
            Some(Secret::Scram(_)) => Err(LoginFailure::OnlyVerifier),
            None => Err(LoginFailure::NoPassword),
        }
    }

    fn tell(&self, out: &mut Vec<u8>) -> Result<(), LoginFailure> {
        if !self.allowed.password {
            return Err(LoginFailure::NotAllowed("password (clear text)"));
        }
        match self.credentials.secret() {
            Some(Secret::Plain(it)) => {
                wire::password(out, it.reveal().as_bytes());
                Ok(())
            }
            Some(Secret::Md5(_) | Secret::Scram(_)) => Err(LoginFailure::OnlyVerifier),
            None => Err(LoginFailure::NoPassword),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::derivation::Derivation;
    use super::*;

    const ALL: ServerAuth = ServerAuth { scram: true, md5: true, password: true };
    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
    const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";

    fn credentials(secret: Option<&str>) -> Credentials {
        Credentials::new(secret.and_then(Secret::parse), [0; 16], Derivation::new(1))
    }

    async fn answers(
        secret: Option<&str>,
        allowed: ServerAuth,
        message: &[u8],
    ) -> Result<Vec<u8>, LoginFailure> {
        let credentials = credentials(secret);
        let mut out = Vec::new();
        let mut login = ServerLogin::new("app", &credentials, allowed, ServerChannel::default(), [1; 18]);
        login.answer(message, &mut out).await.map(|_| out)
    }

    #[tokio::test]
    async fn weak_methods_are_answered_only_where_allowed() {
        let default = ServerAuth::default();
        for (message, method) in [(CLEARTEXT, "password (clear text)"), (MD5, "md5")] {
            let refused = answers(Some("x"), default, message).await;
            assert_eq!(refused, Err(LoginFailure::NotAllowed(method)));
        }
        assert_eq!(answers(Some("x"), ALL, CLEARTEXT).await, Ok(b"p\0\0\0\x06x\0".to_vec()));
        let md5 = answers(Some("x"), ALL, MD5).await.unwrap();
        let digest = format!("md5{}", md5::digest("x", "app"));
        assert_eq!(answers(Some(&digest), ALL, MD5).await.unwrap(), md5);
        assert_eq!(answers(Some(&digest), ALL, CLEARTEXT).await, Err(LoginFailure::OnlyVerifier));
        assert_eq!(answers(None, ALL, MD5).await, Err(LoginFailure::NoPassword));
        let no_scram = ServerAuth { scram: false, ..ALL };
        assert_eq!(answers(Some("x"), no_scram, SASL).await, Err(LoginFailure::NotAllowed("scram-sha-256")));
    }

    #[tokio::test]
    async fn a_server_that_shows_nothing_is_not_trusted_once_asked() {
        let credentials = credentials(Some("x"));
        let mut login = ServerLogin::new("app", &credentials, ALL, ServerChannel::default(), [1; 18]);
        assert_eq!(login.answer(OK, &mut Vec::new()).await, Ok(true));
        assert_eq!(login.answer(SASL, &mut Vec::new()).await, Ok(false));
        assert_eq!(login.answer(OK, &mut Vec::new()).await, Err(LoginFailure::Unsigned));
    }

    #[tokio::test]
    async fn a_proof_is_bound_where_both_sides_can() {
        const PLUS: &[u8] = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let on_tls = ServerChannel { is_tls: true, end_point: Some(EndPoint::of_bytes(b"hash")) };
        let without = ServerChannel { is_tls: true, end_point: None };
        let credentials = credentials(Some("x"));
        let check = async |channel: &ServerChannel, offer: &[u8], want: Result<&str, LoginFailure>| {
            let mut out = Vec::new();
            let mut login = ServerLogin::new("app", &credentials, ALL, channel.clone(), [1; 18]);
            let answered = login.answer(offer, &mut out).await;
            let out = String::from_utf8_lossy(&out).into_owned();
            match want {
                Ok(part) => assert!(answered == Ok(false) && out.contains(part), "{part}: {out:?}"),
                Err(error) => assert_eq!(answered, Err(error)),
            }
        };
        check(&on_tls, PLUS, Ok("SCRAM-SHA-256-PLUS\0\0\0\0\x35p=tls-server-end-point,,n=,r=")).await;
        check(&on_tls, SASL, Ok("SCRAM-SHA-256\0\0\0\0\x20y,,n=,r=")).await;
        check(&without, PLUS, Ok("SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=")).await;
        check(&ServerChannel::default(), SASL, Ok("SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=")).await;
        check(&ServerChannel::default(), PLUS, Err(LoginFailure::Offer)).await;
    }

    #[tokio::test]
    async fn messages_out_of_turn_are_malformed() {
        for message in [&b"R\0\0\0\x08\0\0\0\x0b"[..], b"R\0\0\0\x08\0\0\0\x0c", b"R\0\0\0\x05\0"] {
            assert_eq!(answers(Some("x"), ALL, message).await, Err(LoginFailure::Malformed));
        }
        let gss = answers(Some("x"), ALL, b"R\0\0\0\x08\0\0\0\x07").await;
        assert_eq!(gss, Err(LoginFailure::Method("number 7".to_owned())));
    }
}

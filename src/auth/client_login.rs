//! A client proves who it is. The caller bounds the time.

use subtle::ConstantTimeEq;
use thiserror::Error;

use super::credentials::Credentials;
use super::md5;
use super::scram::{Channel, Exchange, METHOD, METHOD_PLUS, ScramError, Verifier};
use crate::base::{Reason, Refusal, SqlState};
use crate::config::{Auth, Secret};
use crate::net::{Buffer, ClientFacts, EndPoint, ReadError, Stream, read_message};
use crate::wire::{self, FrontendTag};

/// `PG_MAX_AUTH_TOKEN_LENGTH` in PostgreSQL's auth.h.
const MESSAGE_BYTES_MAX: usize = 65_535;
/// 144 bits, as PostgreSQL's `SCRAM_RAW_NONCE_LEN`.
pub const NONCE_BYTES: usize = 18;

/// Who wants in, and how the name is proved.
pub struct Client<'a> {
    pub user: &'a str,
    pub method: Auth,
    /// `None` is a name that nobody has: it is asked for a proof like any other.
    pub credentials: Option<&'a Credentials>,
    /// What its TLS handshake has shown; `None` without TLS.
    pub tls: Option<&'a ClientFacts>,
    /// Makes the salt of names that nobody has.
    pub mock_secret: &'a [u8],
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
}

#[derive(Debug, Error)]
pub enum LoginError {
    /// To be told to the client, as FATAL.
    #[error("{0}")]
    Refused(Refusal),
    /// Nobody is there to be told.
    #[error("client left during login: {0}")]
    Gone(#[from] ReadError),
}

impl From<std::io::Error> for LoginError {
    fn from(error: std::io::Error) -> LoginError {
        LoginError::Gone(ReadError::Io(error))
    }
}

/// Runs the exchange up to, not including, AuthenticationOk. Returns what the client is yet to be told of it, ahead of that and of any error.
pub async fn authenticate(
    stream: &mut Stream,
    buffer: &mut Buffer,
    client: &Client<'_>,
) -> Result<Vec<u8>, LoginError> {
    let last_word = prove(stream, buffer, client).await?;
    // Behind the password, so that names are not told to strangers (`ClientAuthentication` in auth.c).
    if client.tls.is_some_and(|it| it.is_name_checked)
        && let Err(error) = check_certificate(client)
    {
        stream.write_all(&last_word).await?;
        return Err(error);
    }
    Ok(last_word)
}

async fn prove(stream: &mut Stream, buffer: &mut Buffer, client: &Client<'_>) -> Result<Vec<u8>, LoginError> {
    let secret = client.credentials.and_then(Credentials::secret);
    match (client.method, client.credentials, secret) {
        (Auth::Trust, Some(_), _) => {}
        (Auth::Cert, Some(_), _) => check_certificate(client)?,
        (Auth::Password, Some(it), _) => by_clear_text(stream, buffer, client.user, it).await?,
        (Auth::Md5, _, Some(Secret::Plain(it))) => {
            by_md5(stream, buffer, client, &md5::digest(it.reveal(), client.user)).await?;
        }
        (Auth::Md5, _, Some(Secret::Md5(it))) => by_md5(stream, buffer, client, it.digits()).await?,
        // PostgreSQL's method md5 checks a SCRAM verifier by SCRAM too.
        (Auth::Scram | Auth::Md5, ..) | (_, None, _) => return by_scram(stream, buffer, client).await,
    }
    Ok(Vec::new())
}

/// The handshake has seen to it that the certificate is good; what is left is whose it is.
fn check_certificate(client: &Client<'_>) -> Result<(), LoginError> {
    let refusal = |message: String| {
        Err(LoginError::Refused(Refusal::new(Reason::Auth, SqlState::INVALID_AUTHORIZATION, message)))
    };
    match client.tls {
        Some(ClientFacts { common_name: Some(name), .. }) if name == client.user => Ok(()),
        Some(ClientFacts { has_certificate: true, .. }) => {
            refusal(format!("certificate authentication failed for user \"{}\"", client.user))
        }
        _ => refusal("connection requires a valid client certificate".to_owned()),
    }
}

async fn by_clear_text(
    stream: &mut Stream,
    buffer: &mut Buffer,
    user: &str,
    credentials: &Credentials,
) -> Result<(), LoginError> {
    let mut out = Vec::new();
    wire::cleartext_wanted(&mut out);
    stream.write_all(&out).await?;
    let message = password_message(stream, buffer, "password").await?;
    let shown = shown_password(&message, user)?;
    if credentials.accepts(user, shown).await { Ok(()) } else { Err(wrong_password(user)) }
}

async fn by_md5(
    stream: &mut Stream,
    buffer: &mut Buffer,
    client: &Client<'_>,
    digest: &str,
) -> Result<(), LoginError> {
    let [a, b, c, d, ..] = client.nonce;
    let salt = [a, b, c, d];
    let mut out = Vec::new();
    wire::md5_wanted(&mut out, salt);
    stream.write_all(&out).await?;
    let message = password_message(stream, buffer, "password").await?;
    let shown = shown_password(&message, client.user)?;
    let is_right = md5::answer(digest, salt).as_bytes().ct_eq(shown.as_bytes());
    if bool::from(is_right) { Ok(()) } else { Err(wrong_password(client.user)) }
}

/// Returns the server's own proof, for which nobody waits who is not told more.
async fn by_scram(
    stream: &mut Stream,
    buffer: &mut Buffer,
    client: &Client<'_>,
) -> Result<Vec<u8>, LoginError> {
    let known = match client.credentials {
        Some(it) => it.verifier().await,
        None => None,
    };
    let verifier = known.unwrap_or_else(|| Verifier::of_unknown_user(client.user, client.mock_secret));
    let mut out = Vec::new();
    let end_point = client.tls.and_then(|it| it.end_point.as_ref());
    let methods = if end_point.is_some() { &[METHOD_PLUS, METHOD][..] } else { &[METHOD] };
    wire::sasl_methods(&mut out, methods);
    stream.write_all(&out).await?;
    let first = password_message(stream, buffer, "SASL").await?;
    let (channel, data) = initial_response(&first, end_point)?;
    let refused = |it| scram_refusal(it, client.user);
    let (exchange, reply) = Exchange::start(verifier, data, client.nonce, channel).map_err(refused)?;
    out.clear();
    wire::sasl_continue(&mut out, reply.as_bytes());
    stream.write_all(&out).await?;
    let last = password_message(stream, buffer, "SASL").await?;
    let (reply, client_key) = exchange.finish(&last[wire::HEADER_BYTES..]).map_err(refused)?;
    if let Some(it) = client.credentials {
        it.learn(client_key);
    }
    out.clear();
    wire::sasl_final(&mut out, reply.as_bytes());
    Ok(out)
}

/// `wanted` is how PostgreSQL calls the message in its error.
async fn password_message(
    stream: &mut Stream,
    buffer: &mut Buffer,
    wanted: &str,
) -> Result<Vec<u8>, LoginError> {
    let (tag, total) = match read_message(stream, buffer, MESSAGE_BYTES_MAX).await {
        Ok(it) => it,
        Err(ReadError::Frame | ReadError::TooLong(_)) => return Err(violation("invalid message length")),
        Err(error) => return Err(error.into()),
    };
    if FrontendTag(tag) != FrontendTag::PASSWORD {
        return Err(violation(format!("expected {wanted} response, got message type {tag}")));
    }
    let message = buffer.filled()[..total].to_vec();
    buffer.consume(total);
    Ok(message)
}

/// The password of a PasswordMessage (`recv_password_packet` in auth.c).
fn shown_password<'a>(message: &'a [u8], user: &str) -> Result<&'a str, LoginError> {
    let body = &message[wire::HEADER_BYTES..];
    let text = match body.split_last() {
        Some((0, text)) if !text.contains(&0) => text,
        _ => return Err(violation("invalid password packet size")),
    };
    if text.is_empty() {
        let message = "empty password returned by client";
        return Err(LoginError::Refused(Refusal::new(Reason::Auth, SqlState::INVALID_PASSWORD, message)));
    }
    // No password that is known here is anything but UTF-8.
    std::str::from_utf8(text).map_err(|_| wrong_password(user))
}

/// Method and data of SASLInitialResponse, the method as what it means for the channel.
fn initial_response<'a>(
    message: &'a [u8],
    offered: Option<&'a EndPoint>,
) -> Result<(Channel<'a>, &'a [u8]), LoginError> {
    let body = &message[wire::HEADER_BYTES..];
    let (method, data) = split_initial(body).ok_or_else(|| violation("malformed SASL initial response"))?;
    let channel = match offered {
        Some(it) if method == METHOD_PLUS.as_bytes() => Channel::Chosen(it.bytes()),
        Some(_) if method == METHOD.as_bytes() => Channel::Declined,
        None if method == METHOD.as_bytes() => Channel::Unbindable,
        _ => return Err(violation("client selected an invalid SASL authentication mechanism")),
    };
    Ok((channel, data))
}

fn split_initial(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, body)?;
    let (length, data) = body[end + 1..].split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == data.len()).then_some((&body[..end], data))
}

fn violation(message: impl Into<std::borrow::Cow<'static, str>>) -> LoginError {
    LoginError::Refused(Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, message))
}

fn violation_of(error: ScramError, detail: &'static str) -> LoginError {
    let refusal = Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, error.to_string());
    LoginError::Refused(refusal.detail(detail))
}

fn wrong_password(user: &str) -> LoginError {
    let message = format!("password authentication failed for user \"{user}\"");
    LoginError::Refused(Refusal::new(Reason::Auth, SqlState::INVALID_PASSWORD, message))
}

fn scram_refusal(error: ScramError, user: &str) -> LoginError {
    match error {
        ScramError::WrongPassword | ScramError::WrongServer => wrong_password(user),
        ScramError::Malformed | ScramError::BindingType => violation(error.to_string()),
        ScramError::NotBound => {
            violation_of(error, "SCRAM-SHA-256-PLUS was chosen, and the message binds to nothing")
        }
        ScramError::Bound => {
            violation_of(error, "SCRAM-SHA-256 was chosen, and the message binds to a channel")
        }
        ScramError::Downgrade | ScramError::OtherChannel => {
            let refusal = Refusal::new(Reason::Auth, SqlState::INVALID_AUTHORIZATION, error.to_string());
            let detail = match error {
                ScramError::Downgrade => {
                    "the client can bind and has not seen that it was offered SCRAM-SHA-256-PLUS"
                }
                _ => "the client has seen another certificate than the one that it was sent",
            };
            LoginError::Refused(refusal.detail(detail))
        }
    }
}

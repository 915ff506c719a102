//! A client proves who it is. The caller bounds the time.

use thiserror::Error;

use super::scram::{Exchange, METHOD, ScramError, Verifier};
use crate::base::{Reason, Refusal, SqlState};
use crate::net::{Buffer, ReadError, Stream, read_message};
use crate::wire::{self, FrontendTag};

/// `PG_MAX_AUTH_TOKEN_LENGTH` in PostgreSQL's auth.h.
const MESSAGE_BYTES_MAX: usize = 65_535;
/// 144 bits, as PostgreSQL's `SCRAM_RAW_NONCE_LEN`.
pub const NONCE_BYTES: usize = 18;

/// What a user must show.
#[derive(Clone, Debug)]
pub enum Login {
    Trust,
    Scram(Verifier),
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

/// Runs the exchange up to, not including, AuthenticationOk.
pub async fn authenticate(
    stream: &mut Stream,
    buffer: &mut Buffer,
    user: &str,
    login: Login,
    nonce: [u8; NONCE_BYTES],
) -> Result<(), LoginError> {
    let Login::Scram(verifier) = login else { return Ok(()) };
    let mut out = Vec::new();
    wire::sasl_methods(&mut out, &[METHOD]);
    stream.write_all(&out).await?;
    let first = password_message(stream, buffer).await?;
    let data = initial_response(&first)?;
    let refused = |it| LoginError::Refused(scram_refusal(it, user));
    let (exchange, reply) = Exchange::start(verifier, data, nonce).map_err(refused)?;
    out.clear();
    wire::sasl_continue(&mut out, reply.as_bytes());
    stream.write_all(&out).await?;
    let last = password_message(stream, buffer).await?;
    let reply = exchange.finish(&last[wire::HEADER_BYTES..]).map_err(refused)?;
    out.clear();
    wire::sasl_final(&mut out, reply.as_bytes());
    Ok(stream.write_all(&out).await?)
}

async fn password_message(stream: &mut Stream, buffer: &mut Buffer) -> Result<Vec<u8>, LoginError> {
    let (tag, total) = match read_message(stream, buffer, MESSAGE_BYTES_MAX).await {
        Ok(it) => it,
        Err(ReadError::Frame | ReadError::TooLong(_)) => return Err(violation("invalid message length")),
        Err(error) => return Err(error.into()),
    };
    if FrontendTag(tag) != FrontendTag::PASSWORD {
        return Err(violation(format!("expected SASL response, got message type {tag}")));
    }
    let message = buffer.filled()[..total].to_vec();
    buffer.consume(total);
    Ok(message)
}

/// Method and data of SASLInitialResponse.
fn initial_response(message: &[u8]) -> Result<&[u8], LoginError> {
    let body = &message[wire::HEADER_BYTES..];
    let (method, data) = split_initial(body).ok_or_else(|| violation("malformed SASL initial response"))?;
    if method != METHOD.as_bytes() {
        return Err(violation("client selected an invalid SASL authentication mechanism"));
    }
    Ok(data)
}

fn split_initial(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, body)?;
    let (length, data) = body[end + 1..].split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == data.len()).then_some((&body[..end], data))
}

fn violation(message: impl Into<std::borrow::Cow<'static, str>>) -> LoginError {
    LoginError::Refused(Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, message))
}

fn scram_refusal(error: ScramError, user: &str) -> Refusal {
    match error {
        ScramError::WrongPassword => Refusal::new(
            Reason::Auth,
            SqlState::INVALID_PASSWORD,
            format!("password authentication failed for user \"{user}\""),
        ),
        ScramError::Malformed => {
            Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message")
        }
        ScramError::ChannelBinding => {
            Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, error.to_string())
        }
    }
}

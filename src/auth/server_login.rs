//! Keyway proves who it is to a server: one step of the exchange per message of the server.

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use thiserror::Error;

use super::scram::METHOD;
use crate::wire::{self, Authentication};

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoginFailure {
    #[error("server asks for a password and the configuration has none for this user")]
    NoPassword,
    #[error("server asks for authentication method {0}, keyway speaks scram-sha-256 and trust to servers")]
    Method(String),
    #[error("SCRAM exchange failed: {0}")]
    Scram(String),
    #[error("malformed authentication message")]
    Malformed,
}

/// Answers one Authentication message: `Ok(true)` when the server is satisfied; else what to send is
/// in `out`. `state` holds the exchange between calls.
pub fn answer(
    message: &[u8],
    password: Option<&str>,
    state: &mut Option<ScramSha256>,
    out: &mut Vec<u8>,
) -> Result<bool, LoginFailure> {
    let scram = |error: std::io::Error| LoginFailure::Scram(error.to_string());
    match wire::authentication(message).map_err(|_| LoginFailure::Malformed)? {
        Authentication::Ok => return Ok(true),
        Authentication::Sasl(methods) => {
            if !methods.contains(&METHOD.as_bytes()) {
                let offered = methods.iter().map(|it| String::from_utf8_lossy(it)).collect::<Vec<_>>();
                return Err(LoginFailure::Method(offered.join(", ")));
            }
            let password = password.ok_or(LoginFailure::NoPassword)?;
            let client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
            wire::sasl_initial(out, METHOD, client.message());
            *state = Some(client);
        }
        Authentication::SaslContinue(data) => {
            let client = state.as_mut().ok_or(LoginFailure::Malformed)?;
            client.update(data).map_err(scram)?;
            wire::sasl_response(out, client.message());
        }
        Authentication::SaslFinal(data) => {
            state.take().ok_or(LoginFailure::Malformed)?.finish(data).map_err(scram)?;
        }
        Authentication::Other(code) => {
            let name = match code {
                3 => "password (clear text)".to_owned(),
                5 => "md5".to_owned(),
                code => format!("number {code}"),
            };
            return Err(LoginFailure::Method(name));
        }
    }
    Ok(false)
}

//! What the tests of the parts share.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::scram::{
    Channel, Exchange, ITERATIONS, Key, METHOD, ScramError, ScramKeys, Verifier, salted_password,
};

impl Verifier {
    pub fn of_password(password: &str, salt: [u8; 16]) -> Verifier {
        let keys = ScramKeys::new(&salted_password(password, &salt, ITERATIONS));
        Verifier::of_keys(&salt.as_slice().into(), ITERATIONS, &keys)
    }

    /// As PostgreSQL stores it.
    pub fn text(&self) -> String {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|it| BASE64.encode(it));
        format!("{METHOD}${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// The ClientKey that a login with this password shows.
pub fn proof_of(verifier: Verifier, password: &str) -> Result<Key, ScramError> {
    let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let (exchange, first) = Exchange::start(verifier, client.message(), [7; 18], Channel::Unbindable)?;
    client.update(first.as_bytes()).unwrap();
    let (last, client_key) = exchange.finish(client.message())?;
    client.finish(last.as_bytes()).expect("the client accepts the server's signature");
    Ok(client_key)
}

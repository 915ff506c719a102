//! The client's side of SCRAM-SHA-256, as a pure exchange (RFC 5802): Keyway proves to a server that it
//! has the keys, which need not mean that it has the password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq;

use super::scram::{BINDING_TYPE, Key, ScramError, ScramKeys, mac, xor};
use crate::net::EndPoint;

/// Whether the proof is bound to the TLS connection, and so worth nothing on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Keyway cannot bind it.
    Unable,
    /// It could, and the server has not offered to check it. A server that has, and whose offer was taken
    /// away by somebody between, sees that by this.
    NotOffered,
    To(EndPoint),
}

impl Binding {
    /// The GS2 header; it has no name, because the startup packet names the user.
    fn header(&self) -> String {
        match self {
            Binding::Unable => "n,,".to_owned(),
            Binding::NotOffered => "y,,".to_owned(),
            Binding::To(_) => format!("p={BINDING_TYPE},,"),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Binding::To(it) => it.bytes(),
            Binding::Unable | Binding::NotOffered => &[],
        }
    }
}

/// ```text
/// start() ── client-first ──▶ challenged() ── the keys for its salt ──▶ prove() ── client-final ──▶ check()
/// ```
pub struct Proving {
    /// client-first without its header.
    bare: String,
    nonce: String,
    binding: Binding,
}

/// What the server's first message asks for.
pub struct Challenge {
    pub salt: Vec<u8>,
    pub iterations: u32,
    nonce: String,
    text: String,
}

/// What the server has to show in the end: that it knows the user too.
pub struct Expected {
    signature: Key,
}

impl Proving {
    /// Writes client-first. `entropy` makes our half of the nonce.
    pub fn start(entropy: [u8; 18], binding: Binding) -> (Proving, String) {
        let nonce = BASE64.encode(entropy);
        let bare = format!("n=,r={nonce}");
        let first = format!("{}{bare}", binding.header());
        (Proving { bare, nonce, binding }, first)
    }

    /// Reads server-first.
    pub fn challenged(&self, server_first: &[u8]) -> Result<Challenge, ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed)?;
        let mut fields = text.split(',');
        let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
        let parsed = (|| {
            // Another's nonce, or one that only repeats ours, would let an old exchange be played again.
            let nonce = field("r").filter(|it| it.len() > self.nonce.len() && it.starts_with(&self.nonce))?;
            let salt = BASE64.decode(field("s")?).ok()?;
            let iterations = field("i")?.parse().ok().filter(|it| *it > 0)?;
            Some(Challenge { salt, iterations, nonce: nonce.to_owned(), text: text.to_owned() })
        })();
        parsed.ok_or(ScramError::Malformed)
    }

    /// Writes client-final.
    pub fn prove(self, challenge: &Challenge, keys: &ScramKeys) -> (Expected, String) {
        let bound = [self.binding.header().as_bytes(), self.binding.bytes()].concat();
        let unproved = format!("c={},r={}", BASE64.encode(bound), challenge.nonce);
        let signed = [self.bare.as_bytes(), b",", challenge.text.as_bytes(), b",", unproved.as_bytes()];
        let proof = xor(mac(&keys.stored(), &signed), keys.client());
        let signature = mac(keys.server(), &signed);
        (Expected { signature }, format!("{unproved},p={}", BASE64.encode(proof)))
    }
}

impl Expected {
    /// Reads server-final: a server that cannot sign does not have the user's verifier.
    pub fn check(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let signature = server_final.strip_prefix(b"v=").and_then(|it| BASE64.decode(it).ok());
        let signature = signature.ok_or(ScramError::Malformed)?;
        if bool::from(signature.ct_eq(&self.signature)) { Ok(()) } else { Err(ScramError::WrongServer) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scram::{Channel, Exchange, ITERATIONS, Verifier, salted_password};
    use super::*;

    fn keys(password: &str) -> ScramKeys {
        ScramKeys::new(&salted_password(password, &[3; 16], ITERATIONS))
    }

    #[test]
    fn both_sides_agree_on_the_right_password_only() {
        for (ours, theirs) in [("pencil", "pencil"), ("pencil", "pen")] {
            let (proving, first) = Proving::start([1; 18], Binding::Unable);
            let verifier = Verifier::of_password(theirs, [3; 16]);
            let started = Exchange::start(verifier, first.as_bytes(), [2; 18], Channel::Declined);
            let (exchange, reply) = started.unwrap();
            let challenge = proving.challenged(reply.as_bytes()).unwrap();
            assert_eq!((&challenge.salt[..], challenge.iterations), (&[3; 16][..], ITERATIONS));
            let (expected, last) = proving.prove(&challenge, &keys(ours));
            match exchange.finish(last.as_bytes()) {
                Ok((reply, client_key)) => {
                    assert_eq!(ours, theirs);
                    assert_eq!(client_key, *keys(ours).client());
                    assert_eq!(expected.check(reply.as_bytes()), Ok(()));
                    let forged = format!("v={}", BASE64.encode([0; 32]));
                    assert_eq!(expected.check(forged.as_bytes()), Err(ScramError::WrongServer));
                }
                Err(error) => assert_eq!((error, ours != theirs), (ScramError::WrongPassword, true)),
            }
        }
    }

    #[test]
    fn each_binding_says_so_and_meets_its_channel() {
        let end_point = EndPoint::of_bytes(b"hash");
        let mut headers = Vec::new();
        for (binding, channel) in [
            (Binding::Unable, Channel::Declined),
            (Binding::NotOffered, Channel::Unbindable),
            (Binding::To(end_point), Channel::Chosen(b"hash")),
        ] {
            let (proving, first) = Proving::start([1; 18], binding);
            headers.push(first.split_once("n=").unwrap().0.to_owned());
            let verifier = Verifier::of_password("pencil", [3; 16]);
            let (exchange, reply) = Exchange::start(verifier, first.as_bytes(), [2; 18], channel).unwrap();
            let challenge = proving.challenged(reply.as_bytes()).unwrap();
            let (expected, last) = proving.prove(&challenge, &keys("pencil"));
            let (reply, _) = exchange.finish(last.as_bytes()).unwrap();
            assert_eq!(expected.check(reply.as_bytes()), Ok(()));
        }
        assert_eq!(headers, ["n,,", "y,,", "p=tls-server-end-point,,"]);
    }

    #[test]
    fn a_challenge_that_is_no_answer_to_ours_is_malformed() {
        let (proving, _) = Proving::start([1; 18], Binding::Unable);
        let nonce = BASE64.encode([1; 18]);
        for text in [
            String::new(),
            format!("r={nonce},s=AAAA,i=4096"),
            "r=another,s=AAAA,i=4096".to_owned(),
            format!("r={nonce}x,s=AAAA,i=0"),
            format!("r={nonce}x,s=!,i=1"),
            format!("s=AAAA,r={nonce}x,i=1"),
            "e=other-error".to_owned(),
        ] {
            assert!(proving.challenged(text.as_bytes()).is_err(), "{text}");
        }
        assert!(proving.challenged(format!("r={nonce}x,s=AAAA,i=1").as_bytes()).is_ok());
    }
}

//! What is known of a user's password: the password, or what PostgreSQL stores in its place.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

const SCRAM_PREFIX: &str = "SCRAM-SHA-256$";
const MD5_PREFIX: &str = "md5";
const MD5_DIGITS: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Plain(Password),
    Md5(Md5Digest),
    Scram(ScramVerifier),
}

/// A secret that no log line can show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<str>);

/// Of the password with the user's name behind it, as 32 digits: who has it can log in by MD5.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Digest(Arc<str>);

/// Enough to check a proof of the password, not enough to make one (RFC 5803).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    pub iterations: u32,
    pub salt: Arc<[u8]>,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl Secret {
    /// A text as it stands in `pg_authid.rolpassword` (`get_password_type` in PostgreSQL's crypt.c). A
    /// text that begins like a verifier and is none is nobody's password: `None`.
    pub fn parse(text: &str) -> Option<Secret> {
        if let Some(rest) = text.strip_prefix(SCRAM_PREFIX) {
            return ScramVerifier::parse(rest).map(Secret::Scram);
        }
        let is_digit = |it: char| it.is_ascii_digit() || ('a'..='f').contains(&it);
        match text.strip_prefix(MD5_PREFIX) {
            Some(digits) if digits.len() == MD5_DIGITS && digits.chars().all(is_digit) => {
                Some(Secret::Md5(Md5Digest(digits.into())))
            }
            _ => Some(Secret::Plain(Password::new(text))),
        }
    }

    pub fn plain(&self) -> Option<&Password> {
        match self {
            Secret::Plain(it) => Some(it),
            Secret::Md5(_) | Secret::Scram(_) => None,
        }
    }
}

impl ScramVerifier {
    /// `<iterations>:<salt>$<StoredKey>:<ServerKey>`, all but the number in base64.
    fn parse(text: &str) -> Option<ScramVerifier> {
        let (how, keys) = text.split_once('$')?;
        let (iterations, salt) = how.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |it: &str| <[u8; 32]>::try_from(BASE64.decode(it).ok()?).ok();
        let salt = BASE64.decode(salt).ok().filter(|it| !it.is_empty())?;
        Some(ScramVerifier {
            iterations: iterations.parse().ok().filter(|it| *it > 0)?,
            salt: salt.into(),
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

impl Password {
    pub fn new(text: &str) -> Password {
        Password(text.into())
    }

    pub fn reveal(&self) -> &Arc<str> {
        &self.0
    }
}

impl Md5Digest {
    /// 32 digits in lower case.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Debug for Md5Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Digest(..)")
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the password `pencil`, from RFC 7677's example.
    const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn stored_forms_are_told_from_passwords() {
        let Some(Secret::Scram(it)) = Secret::parse(SCRAM) else { panic!("no verifier") };
        assert_eq!((it.iterations, it.salt.len()), (4096, 16));
        let md5 = "md5a3556571e93b0d20722ba62be61e8c2d";
        assert!(matches!(Secret::parse(md5), Some(Secret::Md5(it)) if it.digits() == &md5[3..]));
        for plain in ["md5", "md5A3556571e93b0d20722ba62be61e8c2d", "SCRAM-SHA-1$", "x"] {
            assert!(Secret::parse(plain).is_some_and(|it| it.plain().is_some()), "{plain}");
        }
        for broken in [&SCRAM[..SCRAM.len() - 8], "SCRAM-SHA-256$", &SCRAM.replace("4096", "0")] {
            assert_eq!(Secret::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn no_form_shows_in_a_log_line() {
        for text in [SCRAM, "md5a3556571e93b0d20722ba62be61e8c2d", "pencil"] {
            let shown = format!("{:?}", Secret::parse(text));
            assert!(shown.contains("(..)") && !shown.contains(&text[3..]), "{shown}");
        }
    }
}

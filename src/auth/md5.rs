//! PostgreSQL's MD5 method (manual, "AuthenticationMD5Password"): weak, and used only where the
//! configuration says so.

use std::fmt::Write;

use md5::{Digest, Md5};

/// What a server stores: of the password with the name behind it.
pub fn digest(password: &str, user: &str) -> String {
    hex(&[password.as_bytes(), user.as_bytes()])
}

/// What a client sends for the digest and the salt of this exchange.
pub fn answer(digest: &str, salt: [u8; 4]) -> String {
    format!("md5{}", hex(&[digest.as_bytes(), &salt]))
}

fn hex(parts: &[&[u8]]) -> String {
    let mut md5 = Md5::new();
    parts.iter().for_each(|it| md5.update(it));
    md5.finalize().iter().fold(String::new(), |mut out, it| {
        let _ = write!(out, "{it:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_another_implementation() {
        let theirs = postgres_protocol::authentication::md5_hash(b"app", b"secret", *b"salt");
        assert_eq!(answer(&digest("secret", "app"), *b"salt"), theirs);
    }
}

//! Cancel keys: BackendKeyData, which brings one, and the requests that name one.

use super::frontend::{Body, BodyError};
use super::startup::StartupError;
use super::tag::BackendTag;

pub(super) const CANCEL_REQUEST: u32 = 80_877_102;
/// Keyway's own: a cancel request that a Keyway passes on to the one that its key names. "KW" is the major
/// version of no protocol, so that a PostgreSQL that is taken for a Keyway refuses it.
pub(super) const FORWARDED_CANCEL: u32 = 0x4B57_0001;

/// Manual, "BackendKeyData": from 4 bytes. A request with fewer matches no key.
const SECRET_BYTES_MIN: usize = 4;
const SECRET_BYTES_MAX: usize = 256;

/// What a client may cancel with: the pid and secret of BackendKeyData. The secret has 4 bytes up to
/// protocol 3.1, and up to 256 from 3.2 on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    pub pid: u32,
    pub secret: Box<[u8]>,
}

/// Without the secret: it must not reach a log.
impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey(pid {}, {} bytes)", self.pid, self.secret.len())
    }
}

/// What follows the code of a request.
pub(super) fn requested(body: &[u8]) -> Result<CancelKey, StartupError> {
    let (pid, secret) = body.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    if !(1..=SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(StartupError::Length);
    }
    Ok(CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.into() })
}

pub fn cancel_request(key: &CancelKey) -> Vec<u8> {
    request(CANCEL_REQUEST, key)
}

/// For the Keyway that the key names, and for no further one.
pub fn forwarded_cancel(key: &CancelKey) -> Vec<u8> {
    request(FORWARDED_CANCEL, key)
}

fn request(code: u32, key: &CancelKey) -> Vec<u8> {
    let length = (12 + key.secret.len()) as u32;
    let mut out = Vec::with_capacity(length as usize);
    for word in [length, code, key.pid] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&key.secret);
    out
}

/// BackendKeyData of a server.
pub fn backend_key(message: &[u8]) -> Result<CancelKey, BodyError> {
    let mut body = Body::of(message)?;
    let (pid, secret) = (body.i32()? as u32, body.0);
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(BodyError);
    }
    Ok(CancelKey { pid, secret: secret.into() })
}

/// BackendKeyData for a client.
pub fn backend_key_data(out: &mut Vec<u8>, key: &CancelKey) {
    out.push(BackendTag::BACKEND_KEY_DATA.0);
    out.extend_from_slice(&(8 + key.secret.len() as u32).to_be_bytes());
    out.extend_from_slice(&key.pid.to_be_bytes());
    out.extend_from_slice(&key.secret);
}

#[cfg(test)]
mod tests {
    use super::super::startup::{Startup, startup};
    use super::*;

    fn key(secret_bytes: usize) -> CancelKey {
        CancelKey { pid: 7, secret: (0..secret_bytes).map(|it| it as u8).collect() }
    }

    #[test]
    fn keys_of_every_length_come_back_as_they_went() {
        for length in [4, 32, 256] {
            let key = key(length);
            let mut message = Vec::new();
            backend_key_data(&mut message, &key);
            assert_eq!(message.len(), 9 + length);
            assert_eq!(backend_key(&message), Ok(key.clone()));
            let (request, forwarded) = (cancel_request(&key), forwarded_cancel(&key));
            assert_eq!(startup(&request), Ok(Some((Startup::Cancel(key.clone()), request.len()))));
            assert_eq!(startup(&forwarded), Ok(Some((Startup::ForwardedCancel(key), forwarded.len()))));
        }
    }

    #[test]
    fn keys_out_of_bounds_are_refused() {
        for length in [0, 3, 257] {
            let mut message = Vec::new();
            backend_key_data(&mut message, &key(length));
            assert_eq!(backend_key(&message), Err(BodyError));
        }
        for length in [0, 257] {
            assert_eq!(startup(&cancel_request(&key(length))), Err(StartupError::Length));
        }
        assert_eq!(startup(&[0, 0, 0, 10, 4, 210, 22, 46, 0, 0]), Err(StartupError::Length));
    }

    #[test]
    fn a_key_shows_no_secret() {
        assert_eq!(format!("{:?}", key(4)), "CancelKey(pid 7, 4 bytes)");
    }
}

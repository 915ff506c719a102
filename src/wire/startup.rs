//! The packets before the first tagged message: startup, SSLRequest, GSSENCRequest, CancelRequest.

use thiserror::Error;

use super::cancel::{self, CancelKey};

pub const PROTOCOL_3_0: u32 = 3 << 16;
pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSS_ENC_REQUEST: u32 = 80_877_104;

/// The newest minor version of protocol 3 that is spoken, with clients and with servers.
pub const MINOR_MAX: u16 = 2;
/// From here on secrets of cancel keys may have more than 4 bytes.
const MINOR_OF_LONG_KEYS: u16 = 2;

/// The answers to [`Startup::Ssl`]; the second one is for [`Startup::GssEnc`] too.
pub const TLS_ACCEPTED: &[u8] = b"S";
pub const TLS_REFUSED: &[u8] = b"N";
/// The first byte of TLS, a record of type handshake: no startup packet is long enough to begin with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// The protocol's name in TLS (ALPN), without which PostgreSQL takes no direct TLS.
pub const ALPN: &[u8] = b"postgresql";

/// `MAX_STARTUP_PACKET_LENGTH` in PostgreSQL's pqcomm.h.
const PACKET_BYTES_MAX: usize = 10_000;
/// The 4-byte length and the 4-byte code.
const PACKET_BYTES_MIN: usize = 8;

/// One packet of the start of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    Ssl,
    GssEnc,
    Cancel(CancelKey),
    /// From another Keyway: not to be passed on again.
    ForwardedCancel(CancelKey),
    Session(StartupParameters),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct StartupParameters {
    /// The minor version asked for.
    pub minor: u16,
    pub user: String,
    /// The user's name where the packet has none (manual, "StartupMessage").
    pub database: String,
    /// Settings in the order sent, `options` split up, names in lower case.
    pub settings: Vec<(String, String)>,
    /// `_pq_.` options, none of which is known here.
    pub protocol_options: Vec<String>,
    pub replication: Replication,
}

/// What the connection is for (manual, "Streaming Replication Protocol").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// Queries.
    #[default]
    None,
    /// The log of the whole cluster: no database is meant.
    Physical,
    /// SQL, and the changes of one database.
    Logical,
}

impl StartupParameters {
    /// The minor version to name in NegotiateProtocolVersion, where one has to be sent: the client asks for
    /// more than is spoken here (3.9999 does so for the sake of asking), or for an option.
    pub fn negotiated_minor(&self) -> Option<u16> {
        let differs = self.minor > MINOR_MAX || !self.protocol_options.is_empty();
        differs.then_some(self.minor.min(MINOR_MAX))
    }

    /// The secret of the client's cancel key may have more than 4 bytes. 3.1, which nobody speaks, is taken
    /// for an old one, as by PostgreSQL 18.
    pub fn takes_long_keys(&self) -> bool {
        self.minor >= MINOR_OF_LONG_KEYS
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartupError {
    #[error("invalid length of startup packet")]
    Length,
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Version(u16, u16),
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    #[error("invalid command-line argument for server process: {0}")]
    Option(String),
    #[error("{0} requires a value")]
    OptionValue(String),
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    Replication(String),
    #[error("startup packet is not valid UTF-8")]
    Encoding,
}

/// The packet at the start of `bytes` and its length; `None` until it is there in full. The length is
/// checked first, so that four bytes of rubbish cannot ask for room or for patience.
pub fn startup(bytes: &[u8]) -> Result<Option<(Startup, usize)>, StartupError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&length) {
        return Err(StartupError::Length);
    }
    let Some(packet) = rest.get(..length - 4) else { return Ok(None) };
    let (code, body) = packet.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    let startup = match u32::from_be_bytes(*code) {
        SSL_REQUEST => Startup::Ssl,
        GSS_ENC_REQUEST => Startup::GssEnc,
        cancel::CANCEL_REQUEST => Startup::Cancel(cancel::requested(body)?),
        cancel::FORWARDED_CANCEL => Startup::ForwardedCancel(cancel::requested(body)?),
        version if version >> 16 == 3 => Startup::Session(session((version & 0xFFFF) as u16, body)?),
        version => return Err(StartupError::Version((version >> 16) as u16, version as u16)),
    };
    Ok(Some((startup, length)))
}

/// Whether a connection begins with TLS itself instead of with a packet that asks for it (PostgreSQL 17).
pub fn is_direct_tls(bytes: &[u8]) -> bool {
    bytes.first() == Some(&TLS_HANDSHAKE)
}

/// SSLRequest.
pub fn tls_request() -> [u8; PACKET_BYTES_MIN] {
    let [a, b, c, d] = (PACKET_BYTES_MIN as u32).to_be_bytes();
    let [e, f, g, h] = SSL_REQUEST.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

/// A server's answer to SSLRequest: whether it speaks TLS. `None` is no such answer, such as an error that
/// nobody has signed and that is not to be believed.
pub fn tls_answer(bytes: &[u8]) -> Option<bool> {
    match bytes {
        TLS_ACCEPTED => Some(true),
        TLS_REFUSED => Some(false),
        _ => None,
    }
}

fn session(minor: u16, body: &[u8]) -> Result<StartupParameters, StartupError> {
    let mut fields = body.strip_suffix(b"\0\0").ok_or(StartupError::Layout)?.split(|it| *it == 0);
    let mut found = StartupParameters { minor, ..StartupParameters::default() };
    while let Some(name) = fields.next() {
        let value = fields.next().ok_or(StartupError::Layout)?;
        let text = |it: &[u8]| String::from_utf8(it.to_vec()).map_err(|_| StartupError::Encoding);
        let (name, value) = (text(name)?, text(value)?);
        match name.as_str() {
            "user" => found.user = value,
            "database" => found.database = value,
            // The terminator, before the end.
            "" => return Err(StartupError::Layout),
            "replication" => found.replication = replication(&value)?,
            "options" => split_options(&value, &mut found.settings)?,
            _ if name.starts_with("_pq_.") => found.protocol_options.push(name),
            _ => found.settings.push((name.to_ascii_lowercase(), value)),
        }
    }
    if found.user.is_empty() {
        return Err(StartupError::NoUser);
    }
    if found.database.is_empty() {
        found.database.clone_from(&found.user);
    }
    Ok(found)
}

/// "database", or a boolean as `parse_bool` in PostgreSQL's bool.c reads it: the start of a word does, where
/// it is the start of one only.
fn replication(value: &str) -> Result<Replication, StartupError> {
    if value == "database" {
        return Ok(Replication::Logical);
    }
    let lower = value.to_ascii_lowercase();
    let starts = |word: &str, bytes_min: usize| lower.len() >= bytes_min && word.starts_with(&lower);
    if starts("true", 1) || starts("yes", 1) || starts("on", 2) || lower == "1" {
        Ok(Replication::Physical)
    } else if starts("false", 1) || starts("no", 1) || starts("off", 2) || lower == "0" {
        Ok(Replication::None)
    } else {
        Err(StartupError::Replication(value.to_owned()))
    }
}

/// `-c name=value` and `--name=value`, blanks escaped by a backslash (`pg_split_opts` and
/// `process_postgres_switches` in PostgreSQL's postinit.c and postgres.c).
fn split_options(text: &str, settings: &mut Vec<(String, String)>) -> Result<(), StartupError> {
    let mut words = option_words(text).into_iter();
    while let Some(word) = words.next() {
        let (switch, assignment) = if word == "-c" {
            ("-c ", words.next().ok_or_else(|| StartupError::Option(word.clone()))?)
        } else if let Some(rest) = word.strip_prefix("--") {
            ("--", rest.to_owned())
        } else if let Some(rest) = word.strip_prefix("-c") {
            ("-c ", rest.to_owned())
        } else {
            return Err(StartupError::Option(word));
        };
        let (name, value) = assignment
            .split_once('=')
            .ok_or_else(|| StartupError::OptionValue(format!("{switch}{assignment}")))?;
        settings.push((name.replace('-', "_").to_ascii_lowercase(), value.to_owned()));
    }
    Ok(())
}

fn option_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut chars) = (Vec::new(), String::new(), text.chars());
    while let Some(it) = chars.next() {
        match it {
            '\\' => word.extend(chars.next()),
            it if it.is_ascii_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            it => word.push(it),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn session_of(body: &[u8]) -> Result<StartupParameters, StartupError> {
        match startup(&packet(PROTOCOL_3_0, body))? {
            Some((Startup::Session(it), _)) => Ok(it),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lengths_outside_postgres_bounds_are_refused_at_once() {
        assert_eq!(startup(&[0, 0, 0, 7]), Err(StartupError::Length));
        assert_eq!(startup(&[0, 0, 0x27, 0x11]), Err(StartupError::Length));
        assert_eq!(startup(b"GET "), Err(StartupError::Length));
        assert_eq!(startup(&[0, 0, 0]), Ok(None));
        assert_eq!(startup(&[0, 0, 0, 8, 0, 3]), Ok(None));
    }

    #[test]
    fn requests_without_a_body_are_told_apart() {
        assert_eq!(startup(&packet(SSL_REQUEST, b"")), Ok(Some((Startup::Ssl, 8))));
        assert_eq!(startup(&packet(GSS_ENC_REQUEST, b"")), Ok(Some((Startup::GssEnc, 8))));
        assert_eq!(startup(&packet(2 << 16, b"")), Err(StartupError::Version(2, 0)));
        assert_eq!(tls_request()[..], packet(SSL_REQUEST, b""));
    }

    #[test]
    fn tls_is_told_from_packets_and_its_answer_from_errors() {
        assert!(is_direct_tls(&[0x16, 3, 1]));
        assert!(!is_direct_tls(&[0, 0, 0, 8]) && !is_direct_tls(b""));
        assert_eq!((tls_answer(b"S"), tls_answer(b"N")), (Some(true), Some(false)));
        assert_eq!((tls_answer(b"E"), tls_answer(b"SR"), tls_answer(b"")), (None, None, None));
    }

    #[test]
    fn session_takes_the_user_as_database_and_splits_options() {
        let body = b"user\0app\0options\0-c work_mem=4MB --search-path=a\\ b\0TimeZone\0UTC\0\0";
        let it = session_of(body).unwrap();
        assert_eq!((it.user.as_str(), it.database.as_str()), ("app", "app"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            it.settings,
            [pair("work_mem", "4MB"), pair("search_path", "a b"), pair("timezone", "UTC")]
        );
    }

    #[test]
    fn versions_and_options_are_negotiated_as_by_postgresql_18() {
        let of = |minor, options: &[&str]| StartupParameters {
            minor,
            protocol_options: options.iter().map(|it| (*it).to_owned()).collect(),
            ..StartupParameters::default()
        };
        let negotiated = [
            (0, &[][..], None, false),
            (1, &[], None, false),
            (2, &[], None, true),
            (3, &[], Some(2), true),
            (9999, &[], Some(2), true),
            (0, &["_pq_.a"], Some(0), false),
            (2, &["_pq_.a"], Some(2), true),
        ];
        for (minor, options, named, long) in negotiated {
            let it = of(minor, options);
            assert_eq!((it.negotiated_minor(), it.takes_long_keys()), (named, long), "3.{minor} {options:?}");
        }
    }

    #[test]
    fn replication_is_database_or_a_boolean() {
        let of = |value: &str| session_of(format!("user\0x\0replication\0{value}\0\0").as_bytes());
        for (value, expected) in [
            ("database", Replication::Logical),
            ("true", Replication::Physical),
            ("T", Replication::Physical),
            ("on", Replication::Physical),
            ("1", Replication::Physical),
            ("ye", Replication::Physical),
            ("off", Replication::None),
            ("FALSE", Replication::None),
            ("0", Replication::None),
        ] {
            assert_eq!(of(value).map(|it| it.replication), Ok(expected), "{value}");
        }
        for value in ["o", "", "Database", "2", "truely"] {
            assert_eq!(of(value), Err(StartupError::Replication(value.to_owned())));
        }
    }

    #[test]
    fn session_without_user_or_terminator_is_refused() {
        assert_eq!(session_of(b"database\0x\0\0"), Err(StartupError::NoUser));
        assert_eq!(session_of(b"user\0x\0"), Err(StartupError::Layout));
        assert_eq!(session_of(b"user\0\0"), Err(StartupError::Layout));
        assert_eq!(session_of(b"user\0x\0\0a\0\0"), Err(StartupError::Layout));
        assert_eq!(session_of(b"user\0\xff\0\0"), Err(StartupError::Encoding));
        assert!(matches!(session_of(b"user\0x\0options\0-z\0\0"), Err(StartupError::Option(_))));
    }
}

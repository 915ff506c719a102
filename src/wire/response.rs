//! Bodies of server messages, as far as a decision needs them.

use super::frontend::{Body, BodyError};
use super::{BackendTag, HEADER_BYTES, header};

/// The status byte of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxStatus {
    Idle,
    Open,
    Failed,
}

impl TxStatus {
    pub fn byte(self) -> u8 {
        match self {
            TxStatus::Idle => b'I',
            TxStatus::Open => b'T',
            TxStatus::Failed => b'E',
        }
    }
}

/// The status in a whole ReadyForQuery message.
pub fn tx_status(message: &[u8]) -> Result<TxStatus, BodyError> {
    let mut body = Body::of(message)?;
    let status = body.u8()?;
    body.end()?;
    match status {
        b'I' => Ok(TxStatus::Idle),
        b'T' => Ok(TxStatus::Open),
        b'E' => Ok(TxStatus::Failed),
        _ => Err(BodyError),
    }
}

/// Name and value of a ParameterStatus message.
pub fn parameter(message: &[u8]) -> Result<(&str, &str), BodyError> {
    let mut body = Body::of(message)?;
    let name = std::str::from_utf8(body.cstr()?).map_err(|_| BodyError)?;
    let value = std::str::from_utf8(body.cstr()?).map_err(|_| BodyError)?;
    body.end()?;
    Ok((name, value))
}

/// A NotificationResponse: the process that notified, and the channel.
pub fn notification(message: &[u8]) -> Result<(u32, &str), BodyError> {
    let mut body = Body::of(message)?;
    let pid = body.i32()? as u32;
    let channel = std::str::from_utf8(body.cstr()?).map_err(|_| BodyError)?;
    body.cstr()?;
    body.end()?;
    Ok((pid, channel))
}

/// The types of a ParameterDescription.
pub fn parameter_oids(message: &[u8]) -> Result<Vec<u32>, BodyError> {
    let mut body = Body::of(message)?;
    let count = body.u16()?;
    let mut oids = Vec::new();
    for _ in 0..count {
        oids.push(body.i32()? as u32);
    }
    body.end()?;
    Ok(oids)
}

/// The tag of a CommandComplete message, without its zero byte; empty when malformed.
pub fn copied_tag(message: &[u8]) -> &[u8] {
    Body::of(message).and_then(|mut it| it.cstr()).unwrap_or_default()
}

/// The row count at the end of a command tag: `SELECT 5`, `INSERT 0 5`, `UPDATE 5`.
pub fn rows_of(tag: &[u8]) -> Option<u64> {
    let digits = tag.iter().rev().take_while(|it| it.is_ascii_digit()).count();
    // Twenty digits are as many as u64 may have; a server's count has fewer.
    if digits == 0 || digits > 19 {
        return None;
    }
    Some(tag[tag.len() - digits..].iter().fold(0, |sum, it| sum * 10 + u64::from(it - b'0')))
}

/// Fields of an ErrorResponse or NoticeResponse that a decision or a log line needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// Not localised (field `V`).
    pub severity: &'a [u8],
    pub state: &'a [u8],
    pub message: &'a [u8],
    /// The context that it came up in, such as a function (field `W`).
    pub context: &'a [u8],
    /// The server's own function that told it.
    pub routine: &'a [u8],
}

pub fn error_fields(message: &[u8]) -> Result<ErrorFields<'_>, BodyError> {
    let (mut body, mut fields) = (Body::of(message)?, ErrorFields::default());
    loop {
        let code = body.u8()?;
        if code == 0 {
            return Ok(fields);
        }
        let value = body.cstr()?;
        match code {
            b'V' => fields.severity = value,
            b'C' => fields.state = value,
            b'M' => fields.message = value,
            b'W' => fields.context = value,
            b'R' => fields.routine = value,
            _ => {}
        }
    }
}

/// Whole messages with the contexts of errors and notices replaced where `map` gives another.
pub fn map_contexts(messages: &[u8], map: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(messages.len()), messages);
    while let Ok(Some(head)) = super::header(rest) {
        let Some((message, after)) = rest.split_at_checked(head.total) else { break };
        rest = after;
        let told = matches!(BackendTag(head.tag), BackendTag::ERROR | BackendTag::NOTICE);
        let mapped = if told { mapped_context(message, &map) } else { None };
        out.extend_from_slice(mapped.as_deref().unwrap_or(message));
    }
    out.extend_from_slice(rest);
    out
}

fn mapped_context(message: &[u8], map: impl Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
    let context = error_fields(message).ok()?.context;
    let mapped = map(std::str::from_utf8(context).ok()?)?;
    // Of one field alone is it a part.
    let field = [b"W", context, b"\0"].concat();
    let at = memchr::memmem::rfind(message, &field)?;
    let body =
        [&message[HEADER_BYTES..at], b"W", mapped.as_bytes(), &message[at + field.len() - 1..]].concat();
    let length = (body.len() as u32 + 4).to_be_bytes();
    Some([&message[..1], &length, &body].concat())
}

/// The message with its place in the text (field `P`, in characters from 1) as `map` gives it; `None` where it has none.
pub fn map_position(message: &[u8], map: impl FnOnce(usize) -> usize) -> Option<Vec<u8>> {
    let mut body = Body::of(message).ok()?;
    loop {
        match (body.u8().ok()?, body.0) {
            (0, _) => return None,
            (b'P', rest) => {
                let place = std::str::from_utf8(body.cstr().ok()?).ok()?;
                let head = message.len().checked_sub(rest.len())?;
                let mapped = map(place.parse().ok()?).to_string();
                let body = [&message[HEADER_BYTES..head], mapped.as_bytes(), &rest[place.len()..]].concat();
                let length = (body.len() as u32 + 4).to_be_bytes();
                return Some([&message[..1], &length, &body].concat());
            }
            _ => body.cstr().ok()?,
        };
    }
}

/// What a server asks for during login.
#[derive(Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    Ok,
    /// Methods by name.
    Sasl(Vec<&'a [u8]>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Cleartext,
    /// With the salt of this exchange.
    Md5([u8; 4]),
    /// A method that Keyway does not speak, by its code.
    Other(i32),
}

pub fn authentication(message: &[u8]) -> Result<Authentication<'_>, BodyError> {
    let mut body = Body::of(message)?;
    Ok(match body.i32()? {
        0 => Authentication::Ok,
        3 => Authentication::Cleartext,
        5 => Authentication::Md5(body.i32()?.to_be_bytes()),
        10 => {
            let mut methods = Vec::new();
            loop {
                match body.cstr()? {
                    b"" => break Authentication::Sasl(methods),
                    method => methods.push(method),
                }
            }
        }
        11 => Authentication::SaslContinue(body.0),
        12 => Authentication::SaslFinal(body.0),
        code => Authentication::Other(code),
    })
}

/// What must be equal of a column on every shard: name, type and format. Table oids differ between shards.
pub type ColumnShape<'a> = (&'a [u8], i32, u16);

/// The columns of a RowDescription.
pub fn column_shapes(message: &[u8]) -> Result<Vec<ColumnShape<'_>>, BodyError> {
    let mut body = Body::of(message)?;
    let count = body.u16()?;
    let mut column = || {
        let name = body.cstr()?;
        body.take(6)?;
        let type_oid = body.i32()?;
        body.take(6)?;
        Ok((name, type_oid, body.u16()?))
    };
    (0..count).map(|_| column()).collect()
}

/// The values of a DataRow in text format; `None` is NULL.
pub fn row_texts(message: &[u8]) -> Result<Vec<Option<&str>>, BodyError> {
    let mut body = Body::of(message)?;
    let count = body.u16()?;
    let mut value = || match usize::try_from(body.i32()?) {
        Ok(length) => std::str::from_utf8(body.take(length)?).map(Some).map_err(|_| BodyError),
        Err(_) => Ok(None),
    };
    (0..count).map(|_| value()).collect()
}

/// Where ReadyForQuery begins, in an answer outside of a transaction that says nothing but rows: no error, notice or change of a
/// setting, nothing of a COPY.
pub fn plain_answer(answer: &[u8]) -> Option<usize> {
    use BackendTag as Tag;
    let (mut at, mut ended) = (0, false);
    while let Some(head) = header(&answer[at..]).ok()? {
        let next = at.checked_add(head.total).filter(|it| *it <= answer.len())?;
        match Tag(head.tag) {
            Tag::READY_FOR_QUERY => {
                let is_last = next == answer.len() && tx_status(&answer[at..]) == Ok(TxStatus::Idle);
                return (ended && is_last).then_some(at);
            }
            Tag::COMMAND_COMPLETE | Tag::PORTAL_SUSPENDED if !ended => ended = true,
            Tag::PARSE_COMPLETE
            | Tag::BIND_COMPLETE
            | Tag::PARAMETER_DESCRIPTION
            | Tag::ROW_DESCRIPTION
            | Tag::DATA_ROW => {}
            _ => return None,
        }
        at = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_name_process_and_channel() {
        let message = b"A\0\0\0\x0f\0\0\x01\x02ch\0told\0";
        assert_eq!(notification(&message[..]), Ok((258, "ch")));
        assert!(notification(&message[..message.len() - 1]).is_err());
        let told = super::super::reply::notification_of(message, 7);
        assert_eq!(notification(&told), Ok((7, "ch")));
        assert_eq!(told[9..], message[9..]);
    }

    #[test]
    fn rows_have_texts_and_nulls() {
        let row = b"D\0\0\0\x10\0\x02\0\0\0\x02ab\xff\xff\xff\xff";
        assert_eq!(row_texts(row), Ok(vec![Some("ab"), None]));
        assert!(row_texts(&row[..row.len() - 1]).is_err());
        assert!(row_texts(b"D\0\0\0\x0a\0\x01\0\0\0\x09").is_err());
    }

    #[test]
    fn row_counts_come_from_the_end_of_the_tag() {
        assert_eq!(rows_of(b"SELECT 5"), Some(5));
        assert_eq!(rows_of(b"INSERT 0 12"), Some(12));
        assert_eq!(rows_of(b"CREATE TABLE"), None);
    }

    #[test]
    fn error_fields_are_found_in_any_order() {
        let it = error_fields(b"E\0\0\0\x1eSFEHLER\0VERROR\0Mno\0C25006\0\0").unwrap();
        assert_eq!((it.severity, it.state, it.message), (&b"ERROR"[..], &b"25006"[..], &b"no"[..]));
        assert!(error_fields(b"E\0\0\0\x0cSFEHLER\0").is_err());
    }

    #[test]
    fn the_place_of_an_error_is_mapped() {
        let mut message = b"E\0\0\0\0SERROR\0VERROR\0C42601\0MP\0P1004\0Rscan\0\0".to_vec();
        message[4] = message.len() as u8 - 1;
        let mapped = map_position(&message, |it| it - 1000).unwrap();
        assert_eq!(&mapped[5..], b"SERROR\0VERROR\0C42601\0MP\0P4\0Rscan\0\0");
        assert_eq!(usize::from(mapped[4]), mapped.len() - 1);
        assert_eq!(map_position(&mapped[..mapped.len() - 9], |it| it), None, "cut off");
        assert_eq!(map_position(b"E\0\0\0\x0dMno P1\0\0", |it| it), None);
        assert_eq!(map_position(b"E\0\0\0\x09Pno\0\0", |it| it), None);
    }

    #[test]
    fn a_plain_answer_is_rows_and_an_end() {
        let (row, end) = (&b"D\0\0\0\x06\0\0"[..], &b"C\0\0\0\x0dSELECT 1\0"[..]);
        let (ready, notice) = (&b"Z\0\0\0\x05I"[..], &b"N\0\0\0\x05\0"[..]);
        let of = |parts: &[&[u8]]| plain_answer(&parts.concat());
        assert_eq!(of(&[b"2\0\0\0\x04", row, row, end, ready]), Some(5 + 7 + 7 + 14));
        assert_eq!(of(&[row, end, b"Z\0\0\0\x05T"]), None);
        assert_eq!(of(&[row, notice, end, ready]), None);
        assert_eq!(of(&[row, end, end, ready]), None);
        assert_eq!(of(&[row, ready]), None);
        assert_eq!(of(&[row, end, ready, row]), None);
        let whole = [row, end, ready].concat();
        assert!((0..whole.len()).all(|it| plain_answer(&whole[..it]).is_none()));
    }

    #[test]
    fn status_is_one_of_three() {
        assert_eq!(tx_status(b"Z\0\0\0\x05T"), Ok(TxStatus::Open));
        assert!(tx_status(b"Z\0\0\0\x05X").is_err());
        assert!(tx_status(b"Z\0\0\0\x04").is_err());
    }

    #[test]
    fn sasl_methods_are_listed() {
        let it = authentication(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").unwrap();
        assert_eq!(it, Authentication::Sasl(vec![b"SCRAM-SHA-256"]));
        let md5 = b"R\0\0\0\x0c\0\0\0\x05salt";
        assert_eq!(authentication(md5), Ok(Authentication::Md5(*b"salt")));
        assert!(authentication(&md5[..9]).is_err());
        assert_eq!(authentication(b"R\0\0\0\x08\0\0\0\x07"), Ok(Authentication::Other(7)));
    }

    #[test]
    fn column_shapes_leave_out_table_oids() {
        let row = |table: u8| {
            let mut it = b"T\0\0\0\x1a\0\x01id\0".to_vec();
            it.extend([0, 0, 0, table, 0, 1, 0, 0, 0, 20, 0, 8, 255, 255, 255, 255, 0, 0]);
            it
        };
        assert_eq!(column_shapes(&row(1)), column_shapes(&row(2)));
        assert_eq!(column_shapes(&row(1)).unwrap(), [(&b"id"[..], 20, 0)]);
    }
}

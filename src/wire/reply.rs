//! Messages to a client that Keyway makes up itself. None is on the relay path, so they are written
//! through `pgwire`'s message types. (Its decoders trust lengths; ours read the peer's bytes.)

use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::data::{FieldDescription, ParameterDescription, RowDescription};
use pgwire::messages::response::{CommandComplete, ErrorResponse, NoticeResponse};
use pgwire::messages::startup::{Authentication, NegotiateProtocolVersion};

use super::response::TxStatus;
use super::startup::PROTOCOL_3_0;
use super::tag::BackendTag;
use crate::base::Refusal;

pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
pub const NO_DATA: &[u8] = b"n\0\0\0\x04";
pub const DEALLOCATED: &[u8] = b"C\0\0\0\x0fDEALLOCATE\0";
pub const ALL_DEALLOCATED: &[u8] = b"C\0\0\0\x13DEALLOCATE ALL\0";
pub const PREPARED: &[u8] = b"C\0\0\0\x0cPREPARE\0";
pub const EMPTY_QUERY: &[u8] = b"I\0\0\0\x04";

/// How bad an error is: FATAL ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
}

/// Cannot fail for what is passed here: pgwire refuses only messages over its size limits, and a
/// text that long is left out rather than sent in part.
fn put(out: &mut Vec<u8>, message: &impl Message) {
    let mut bytes = BytesMut::new();
    if message.encode(&mut bytes).is_ok() {
        out.extend_from_slice(&bytes);
    }
}

/// ErrorResponse (manual, "Error and Notice Message Fields").
pub fn error(out: &mut Vec<u8>, severity: Severity, refusal: &Refusal) {
    let severity = match severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    let mut fields = vec![(b'S', severity.to_owned()), (b'V', severity.to_owned())];
    fields.push((b'C', refusal.state().0.to_owned()));
    fields.push((b'M', refusal.message().to_owned()));
    fields.extend(refusal.detail_text().map(|it| (b'D', it.to_owned())));
    fields.extend(refusal.hint_text().map(|it| (b'H', it.to_owned())));
    fields.extend(refusal.position().map(|it| (b'P', it.to_string())));
    fields.extend(refusal.context().map(|it| (b'W', it.to_owned())));
    put(out, &ErrorResponse::new(fields));
}

/// A WARNING, as PostgreSQL sends for COMMIT outside a transaction.
pub fn notice(out: &mut Vec<u8>, state: &str, message: &str) {
    put_notice(out, "WARNING", state, message);
}

/// A NOTICE: good to know, and nothing to worry about.
pub fn information(out: &mut Vec<u8>, message: &str) {
    put_notice(out, "NOTICE", "00000", message);
}

fn put_notice(out: &mut Vec<u8>, severity: &str, state: &str, message: &str) {
    let field = |code: u8, text: &str| (code, text.to_owned());
    let fields = vec![field(b'S', severity), field(b'V', severity), field(b'C', state), field(b'M', message)];
    put(out, &NoticeResponse::new(fields));
}

/// A whole NotificationResponse with the notifying process replaced; the rest as it came.
pub fn notification_of(message: &[u8], pid: u32) -> Vec<u8> {
    let mut out = message.to_vec();
    if let Some(place) = out.get_mut(super::HEADER_BYTES..super::HEADER_BYTES + 4) {
        place.copy_from_slice(&pid.to_be_bytes());
    }
    out
}

/// Of ReadyForQuery.
pub const READY_BYTES: usize = 6;

pub fn ready_for_query(out: &mut Vec<u8>, status: TxStatus) {
    out.extend_from_slice(&[BackendTag::READY_FOR_QUERY.0, 0, 0, 0, 5, status.byte()]);
}

pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    put(out, &CommandComplete::new(tag.to_owned()));
}

/// By hand, since a login has more than a dozen of them, each of which would allocate five times.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(BackendTag::PARAMETER_STATUS.0);
    out.extend_from_slice(&((6 + name.len() + value.len()) as u32).to_be_bytes());
    for text in [name, value] {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }
}

pub fn parameter_description(out: &mut Vec<u8>, oids: &[u32]) {
    put(out, &ParameterDescription::new(oids.to_vec()));
}

pub fn authentication_ok(out: &mut Vec<u8>) {
    put(out, &Authentication::Ok);
}

pub fn cleartext_wanted(out: &mut Vec<u8>) {
    put(out, &Authentication::CleartextPassword);
}

pub fn md5_wanted(out: &mut Vec<u8>, salt: [u8; 4]) {
    put(out, &Authentication::MD5Password(salt.to_vec()));
}

pub fn sasl_methods(out: &mut Vec<u8>, methods: &[&str]) {
    put(out, &Authentication::SASL(methods.iter().map(|it| (*it).to_owned()).collect()));
}

pub fn sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    put(out, &Authentication::SASLContinue(Bytes::copy_from_slice(data)));
}

pub fn sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    put(out, &Authentication::SASLFinal(Bytes::copy_from_slice(data)));
}

/// Says which minor version is spoken, and which options are not.
pub fn negotiate_version(out: &mut Vec<u8>, minor: u16, options: Vec<String>) {
    put(out, &NegotiateProtocolVersion::new(PROTOCOL_3_0 as i32 + i32::from(minor), options));
}

/// A result of text columns that Keyway answers itself.
pub struct TextRows<'a> {
    pub columns: &'a [&'a str],
}

impl TextRows<'_> {
    pub fn describe(&self, out: &mut Vec<u8>) {
        const TEXT_OID: u32 = 25;
        let field = |name: &&str| FieldDescription::new((*name).to_owned(), 0, 0, TEXT_OID, -1, -1, 0);
        put(out, &RowDescription::new(self.columns.iter().map(field).collect()));
    }

    pub fn row(&self, out: &mut Vec<u8>, values: &[&str]) {
        let length = 6 + values.iter().map(|it| 4 + it.len()).sum::<usize>();
        out.push(BackendTag::DATA_ROW.0);
        out.extend_from_slice(&(length as u32).to_be_bytes());
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Reason, SqlState};

    #[test]
    fn error_carries_state_detail_hint_and_position() {
        let refusal = Refusal::new(Reason::Parse, SqlState::SYNTAX_ERROR, "syntax error").hint("look").at(3);
        let mut out = Vec::new();
        error(&mut out, Severity::Error, &refusal);
        assert_eq!(out[0], b'E');
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize + 1, out.len());
        let body = &out[5..];
        for field in [&b"SERROR\0"[..], b"C42601\0", b"Msyntax error\0", b"Hlook\0", b"P3\0"] {
            assert!(body.windows(field.len()).any(|it| it == field), "{field:?}");
        }
    }

    #[test]
    fn parameters_come_back_as_they_went() {
        let mut out = Vec::new();
        parameter_status(&mut out, "TimeZone", "UTC");
        parameter_status(&mut out, "application_name", "");
        let first = crate::wire::header(&out).unwrap().unwrap().total;
        assert_eq!(crate::wire::parameter(&out[..first]), Ok(("TimeZone", "UTC")));
        assert_eq!(crate::wire::parameter(&out[first..]), Ok(("application_name", "")));
        assert_eq!(crate::wire::header(&out[first..]).unwrap().unwrap().total, out.len() - first);
    }

    #[test]
    fn text_rows_have_true_lengths() {
        let mut out = Vec::new();
        TextRows { columns: &["a", "b"] }.row(&mut out, &["xy", ""]);
        assert_eq!(out, b"D\0\0\0\x10\0\x02\0\0\0\x02xy\0\0\0\0");
    }
}

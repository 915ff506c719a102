//! Messages to a server that Keyway writes itself.

use super::HEADER_BYTES;
use super::bind::Bind;
use super::startup::PROTOCOL_3_0;
use super::tag::FrontendTag;

pub const SYNC: &[u8] = b"S\0\0\0\x04";
/// What makes a server send its answers although no Sync follows.
pub const FLUSH: &[u8] = b"H\0\0\0\x04";

/// Writes one message; `body` appends to the buffer and the length is filled in behind it.
fn message(out: &mut Vec<u8>, tag: FrontendTag, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag.0);
    with_length(out, body);
}

fn with_length(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// Of protocol 3.`minor`.
pub fn startup_message(out: &mut Vec<u8>, minor: u16, user: &str, database: &str, settings: &[(&str, &str)]) {
    with_length(out, |out| {
        out.extend_from_slice(&(PROTOCOL_3_0 + u32::from(minor)).to_be_bytes());
        for (name, value) in [("user", user), ("database", database)].iter().chain(settings) {
            cstr(out, name.as_bytes());
            cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

pub fn query(out: &mut Vec<u8>, text: &str) {
    message(out, FrontendTag::QUERY, |out| cstr(out, text.as_bytes()));
}

/// In answer to a request for a clear text or an MD5 password.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    message(out, FrontendTag::PASSWORD, |out| cstr(out, password));
}

/// Begins a CopyData message, whose bytes are then appended.
pub fn begin_copy_data(out: &mut Vec<u8>) {
    out.push(FrontendTag::COPY_DATA.0);
    out.extend_from_slice(&[0; 4]);
}

/// Ends the message that `begin_copy_data` began at the start of `out`.
pub fn end_copy_data(out: &mut [u8]) {
    let length = (out.len().saturating_sub(1) as u32).to_be_bytes();
    if let Some(field) = out.get_mut(1..HEADER_BYTES) {
        field.copy_from_slice(&length);
    }
}

pub fn copy_done(out: &mut Vec<u8>) {
    message(out, FrontendTag::COPY_DONE, |_| {});
}

pub fn copy_fail(out: &mut Vec<u8>, why: &[u8]) {
    message(out, FrontendTag::COPY_FAIL, |out| cstr(out, why));
}

pub fn sasl_initial(out: &mut Vec<u8>, method: &str, data: &[u8]) {
    message(out, FrontendTag::PASSWORD, |out| {
        cstr(out, method.as_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
    });
}

pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, FrontendTag::PASSWORD, |out| out.extend_from_slice(data));
}

/// A question of Keyway's own, with text parameters and a text answer: Parse to Sync.
pub fn ask(out: &mut Vec<u8>, text: &str, values: &[&str], rows_max: u32) {
    parse_named(out, b"", text.as_bytes(), &[]);
    message(out, FrontendTag::BIND, |out| {
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        out.extend_from_slice(&[0; 2]);
    });
    message(out, FrontendTag::EXECUTE, |out| {
        out.push(0);
        out.extend_from_slice(&rows_max.to_be_bytes());
    });
    out.extend_from_slice(SYNC);
}

/// Bind of the unnamed statement to the unnamed portal, Describe of the portal and Execute of `rows_max` of its
/// rows, 0 for all. Values with their format codes, NULL is `None`; `results` are format codes of columns.
pub fn run_unnamed(out: &mut Vec<u8>, values: &[(i16, Option<&[u8]>)], results: &[i16], rows_max: u32) {
    let count = |out: &mut Vec<u8>, it: usize| out.extend_from_slice(&(it as u16).to_be_bytes());
    message(out, FrontendTag::BIND, |out| {
        out.extend_from_slice(&[0; 2]);
        count(out, values.len());
        values.iter().for_each(|it| out.extend_from_slice(&it.0.to_be_bytes()));
        count(out, values.len());
        for (_, value) in values {
            match value {
                None => out.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(value) => {
                    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    out.extend_from_slice(value);
                }
            }
        }
        count(out, results.len());
        results.iter().for_each(|it| out.extend_from_slice(&it.to_be_bytes()));
    });
    message(out, FrontendTag::DESCRIBE, |out| out.extend_from_slice(b"P\0"));
    message(out, FrontendTag::EXECUTE, |out| {
        cstr(out, b"");
        out.extend_from_slice(&rows_max.to_be_bytes());
    });
}

/// Parse under a name of ours. `oids` as they stand in the client's message: big-endian.
pub fn parse_named(out: &mut Vec<u8>, name: &[u8], text: &[u8], oids: &[u8]) {
    message(out, FrontendTag::PARSE, |out| {
        cstr(out, name);
        cstr(out, text);
        out.extend_from_slice(&((oids.len() / 4) as u16).to_be_bytes());
        out.extend_from_slice(oids);
    });
}

/// The client's Bind with the statement name replaced; everything else is copied as it came.
pub fn bind_renamed(out: &mut Vec<u8>, bind: &Bind<'_>, name: &[u8]) {
    let (head, rest) = bind.message().split_at(bind.statement_at());
    message(out, FrontendTag::BIND, |out| {
        out.extend_from_slice(&head[super::HEADER_BYTES..]);
        out.extend_from_slice(name);
        out.extend_from_slice(&rest[bind.statement().len()..]);
    });
}

pub fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, FrontendTag::DESCRIBE, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, FrontendTag::CLOSE, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

pub fn close_portal(out: &mut Vec<u8>, name: &[u8]) {
    message(out, FrontendTag::CLOSE, |out| {
        out.push(b'P');
        cstr(out, name);
    });
}

pub fn terminate(out: &mut Vec<u8>) {
    message(out, FrontendTag::TERMINATE, |_| {});
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_keeps_everything_but_the_statement_name() {
        let original = b"B\0\0\0\x15p\0long\0\0\0\0\x01\0\0\0\x01x\0\0";
        let original = &{
            let mut it = original.to_vec();
            let length = it.len() as u32 - 1;
            it[1..5].copy_from_slice(&length.to_be_bytes());
            it
        };
        let bind = Bind::read(original).unwrap();
        let mut out = Vec::new();
        bind_renamed(&mut out, &bind, b"kw_1");
        let renamed = Bind::read(&out).unwrap();
        assert_eq!((renamed.portal(), renamed.statement()), (&b"p"[..], &b"kw_1"[..]));
        assert_eq!(renamed.values().iter().collect::<Vec<_>>(), [Some(&b"x"[..])]);
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize + 1, out.len());
    }

    #[test]
    fn a_question_is_read_back() {
        let mut out = Vec::new();
        ask(&mut out, "SELECT $1", &["app", ""], 2);
        let mut messages = Vec::new();
        while let Some(head) = crate::wire::header(&out).unwrap() {
            messages.push(out.drain(..head.total).collect::<Vec<_>>());
        }
        assert_eq!(crate::wire::parse(&messages[0]).unwrap().text, b"SELECT $1");
        let bind = Bind::read(&messages[1]).unwrap();
        assert_eq!(bind.values().iter().collect::<Vec<_>>(), [Some(&b"app"[..]), Some(b"")]);
        assert_eq!(crate::wire::execute(&messages[2]).unwrap().rows_max, 2);
        assert_eq!((&messages[3][..], messages.len()), (SYNC, 4));
    }

    #[test]
    fn parse_named_is_read_back() {
        let mut out = Vec::new();
        parse_named(&mut out, b"kw_1", b"SELECT $1", &[0, 0, 0, 23]);
        let it = crate::wire::parse(&out).unwrap();
        assert_eq!((it.name, it.text), (&b"kw_1"[..], &b"SELECT $1"[..]));
        assert_eq!(it.oids().collect::<Vec<_>>(), [23]);
    }
}

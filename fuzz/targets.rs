//! What each fuzz target does with some bytes: a panic is a finding. `tests/fuzz_corpus.rs` runs the same on
//! the corpora, without a fuzzer.

use std::path::Path;

use keyway::config::Config;
use keyway::proto::{Expect, Intake, Limits, Origin, Pipeline, Replies, StatementId, Unit};
use keyway::sql::{self, Parser, scan};
use keyway::wire;

const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// libpg_query takes long for long texts, and is not what is tested.
const PARSED_BYTES_MAX: usize = 2_000;

/// A client's bytes: cut into the same units however they come, and bodies that hold what they promise.
pub fn wire_frontend(bytes: &[u8]) {
    let whole = units(bytes, bytes.len().max(1));
    assert_eq!(units(bytes, 7), whole);
    let mut rest = bytes;
    while let Ok(Some(head)) = wire::header(rest) {
        let Some((message, after)) = rest.split_at_checked(head.total) else { break };
        frontend_body(message);
        rest = after;
    }
}

/// Units with their lengths, and whether the client went wrong behind them; `step` bytes come at a time.
fn units(bytes: &[u8], step: usize) -> (Vec<Unit>, bool) {
    let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX };
    let (mut intake, mut units, mut start, mut end) = (Intake::default(), Vec::new(), 0, 0);
    loop {
        match intake.next(&bytes[start..end], limits) {
            Ok(Some(unit)) => {
                let length = match unit {
                    Unit::Query(it) | Unit::Extended(it, _) | Unit::FunctionCall(it) | Unit::Stray(it) => it,
                    Unit::Terminate => return (units, false),
                };
                assert!((1..=end - start).contains(&length));
                start += length;
                units.push(unit);
            }
            Ok(None) if end == bytes.len() => return (units, false),
            Ok(None) => end = (end + step).min(bytes.len()),
            Err(_) => return (units, true),
        }
    }
}

fn frontend_body(message: &[u8]) {
    if let Ok(text) = wire::query_text(message) {
        assert!(text.len() < message.len());
    }
    if let Ok(it) = wire::parse(message) {
        let mut out = Vec::new();
        wire::parse_named(&mut out, it.name, it.text, it.oids);
        let again = wire::parse(&out).expect("what was written is read");
        assert_eq!((again.name, again.text, again.oids), (it.name, it.text, it.oids));
        assert_eq!(it.oids().count() * 4, it.oids.len());
    }
    if let Ok(it) = wire::Bind::read(message) {
        assert_eq!(it.values().iter().count(), it.values().len());
        let mut out = Vec::new();
        wire::bind_renamed(&mut out, &it, b"another");
        let again = wire::Bind::read(&out).expect("what was written is read");
        assert_eq!((again.portal(), again.statement()), (it.portal(), &b"another"[..]));
        assert!(again.values().iter().eq(it.values().iter()));
        assert!((0..it.values().len()).all(|at| again.formats().is_binary(at) == it.formats().is_binary(at)));
    }
    let _ = wire::target(message);
    let _ = wire::execute(message);
}

/// What is owed, as one byte for each reply, and then a server's bytes: the client sees the same however they
/// come, and nothing that did not come.
pub fn wire_backend(bytes: &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return };
    let Some((owed, stream)) = rest.split_at_checked(usize::from(*count)) else { return };
    let whole = seen(owed, stream, stream.len().max(1));
    assert_eq!(seen(owed, stream, 5), whole);
    let mut rest = stream;
    while let Ok(Some(head)) = wire::header(rest) {
        let Some((message, after)) = rest.split_at_checked(head.total) else { break };
        let _ = wire::error_fields(message);
        let _ = wire::parameter(message);
        let _ = wire::backend_key(message);
        let _ = wire::authentication(message);
        let _ = wire::column_shapes(message);
        let _ = wire::row_texts(message);
        let _ = wire::tx_status(message);
        let _ = wire::rows_of(wire::copied_tag(message));
        rest = after;
    }
}

fn expect(byte: u8, number: u64) -> Expect {
    let id = StatementId::named(number);
    match byte % 16 {
        0 => Expect::Query(Origin::Client),
        1 => Expect::Parse(Origin::Client, id),
        2 => Expect::Bind,
        3 => Expect::Describe,
        4 => Expect::Execute,
        5 => Expect::Close(Origin::Client),
        6 => Expect::Sync,
        7 => Expect::Query(Origin::Keyway),
        8 => Expect::Parse(Origin::Keyway, id),
        9 => Expect::MadeParse(id),
        10 => Expect::MadeClose,
        11 => Expect::Close(Origin::Keyway),
        12 => Expect::SetUp,
        13 => Expect::Prepare(id),
        14 => Expect::Parse(Origin::Client, StatementId::unnamed(number)),
        15 => Expect::OwnSync,
        _ => Expect::Sync,
    }
}

/// What the client gets, what of it ends the connection, and whether the server is free.
fn seen(owed: &[u8], stream: &[u8], step: usize) -> (Vec<u8>, Option<String>, bool) {
    let mut pipeline = Pipeline::new(MESSAGE_BYTES_MAX);
    owed.iter().zip(0..).for_each(|(it, number)| pipeline.push(expect(*it, number)));
    let (mut replies, mut out, mut kept) = (Replies::default(), Vec::new(), Vec::new());
    pipeline.release_made(&mut replies);
    replies.pieces.iter().for_each(|it| out.extend_from_slice(it.bytes(&[])));
    for part in stream.chunks(step) {
        kept.extend_from_slice(part);
        replies.next_buffer();
        let fed = pipeline.feed(&kept, &mut replies);
        if let Err(unexpected) = fed {
            // How much went out before depends on how it came.
            return (Vec::new(), Some(unexpected.to_string()), false);
        }
        replies.pieces.iter().for_each(|it| out.extend_from_slice(it.bytes(&kept)));
        let consumed = fed.unwrap_or(0);
        assert!(consumed <= kept.len());
        kept.drain(..consumed);
    }
    (out, None, pipeline.is_free())
}

/// The first packet: what is whole is the same with more behind it, what is not may not be told yet.
pub fn startup(bytes: &[u8]) {
    let whole = wire::startup(bytes);
    match &whole {
        Ok(Some((_, length))) => {
            assert!((8..=bytes.len()).contains(length));
            assert_eq!(wire::startup(&bytes[..*length]), whole);
            assert_eq!(wire::startup(&bytes[..*length - 1]), Ok(None));
        }
        Ok(None) => {}
        Err(_) => assert_eq!(wire::startup(&[bytes, b"more"].concat()), whole),
    }
    if let Ok(Some((wire::Startup::Session(it), _))) = whole {
        assert!(!it.user.is_empty() && !it.database.is_empty());
    }
}

/// A statement: literals where they are said to be, other values under the same fingerprint, and facts of
/// whatever PostgreSQL's grammar takes.
pub fn sql_scan(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let found = scan(text);
    let mut end = 0;
    for literal in &found.literals {
        let (start, stop) = (literal.start as usize, literal.end as usize);
        assert!(end <= start && start < stop && stop <= text.len());
        assert!(text.is_char_boundary(start) && text.is_char_boundary(stop));
        end = stop;
    }
    names(text);
    if !found.well_formed {
        return;
    }
    let spaced = format!(" {text}\n/* a comment */");
    assert_eq!(scan(&spaced).fingerprint, found.fingerprint);
    if text.len() <= PARSED_BYTES_MAX && !text.contains('\0') {
        let _ = Parser::new().facts(text, &found.literals);
    }
}

/// Hints, and names of prepared statements where they are said to be.
fn names(text: &str) {
    let _ = sql::text_hint(text);
    let _ = sql::prepare_names(text);
    let mut end = 0;
    for it in sql::execute_names(text) {
        assert!(end <= it.place.start && it.place.start < it.place.end);
        assert!(!text[it.place.clone()].is_empty() && it.name.len() <= it.place.len());
        end = it.place.end;
    }
    if let Some(it) = sql::prepare_text(text) {
        assert!(it.body.ends_with(it.statement));
        let again = format!("PREPARE another {}", it.body);
        let again = sql::prepare_text(&again).expect("what was cut out is one again");
        assert_eq!((again.statement, &again.oids), (it.statement, &it.oids));
    }
    if let Some(it) = sql::execute_text(text) {
        let values = it.values.iter().flatten().flatten();
        // No value is longer than it is written: hexadecimal digits stand for no more decimal ones than 1.3 each.
        assert!(values.map(String::len).sum::<usize>() <= 2 * text.len());
    }
}

/// A configuration file: loaded, or every problem with a line that there is.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| name.ends_with("PASSWORD").then(|| "secret".to_owned());
    match Config::parse(text, Path::new("/nonexistent"), &env) {
        Ok(it) => assert!(!it.databases.is_empty() || text.contains("database")),
        Err(problems) => {
            assert!(!problems.is_empty());
            for it in problems {
                assert!(it.line.is_none_or(|line| (1..=text.lines().count().max(1) + 1).contains(&line)));
                assert!(!it.to_string().is_empty());
            }
        }
    }
}

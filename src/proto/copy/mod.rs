//! COPY data as records: where each ends, which line it is of, and what its key's fields hold. Follows
//! `CopyReadLineText`, `CopyReadAttributesText` and `CopyReadAttributesCSV` of `copyfromparse.c`; what a record holds
//! otherwise is for the server to judge.

mod binary;
mod lines;
mod text;

use std::borrow::Cow;

pub use lines::LineMap;

use crate::base::{Reason, Refusal, SqlState};
use crate::sql::{CopyForm, CopyFormat};

/// What the next bytes are, and behind which byte it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// For every shard: the header of CSV, text or binary data.
    Head(usize),
    Record(usize),
    /// The marker at the end of the data, for every shard; what follows is ignored.
    End(usize),
    /// Bytes that make no record, as the server will say.
    Broken,
    /// The rest is still to come.
    More,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyField<'a> {
    Value(Cow<'a, [u8]>),
    Null,
    /// The marker of option DEFAULT.
    Default,
    /// The record ends before it.
    Missing,
}

/// How lines end, which the first one tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Newline,
    Return,
    Both,
}

/// ```text
///   Head ──header──▶ Records ──marker──▶ over
/// ```
/// Bytes are given from the start of a record on, again with more behind them after `Found::More`.
#[derive(Clone, Debug)]
pub struct CopyReader {
    form: CopyForm,
    /// The header is still to come.
    before_head: bool,
    /// How far the record that begins the bytes was looked at.
    looked: usize,
    line_end: Option<LineEnd>,
    in_quote: bool,
    was_escape: bool,
    /// Lines so far, those inside of quotes included.
    lines: u64,
    /// Of the record that was found last.
    of_record: u64,
    /// Before the record that is looked for.
    before: u64,
}

impl CopyReader {
    pub fn new(form: CopyForm) -> CopyReader {
        CopyReader {
            before_head: form.header || form.format == CopyFormat::Binary,
            form,
            looked: 0,
            line_end: None,
            in_quote: false,
            was_escape: false,
            lines: 0,
            of_record: 0,
            before: 0,
        }
    }

    /// Of the record that was found last, as PostgreSQL counts them.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// How many lines the record that was found last is to a server that is sent it, as its first one or not:
    /// before PostgreSQL knows how lines end, a newline inside of quotes is none to it.
    pub fn lines_of(&self, record: &[u8], is_first: bool) -> u64 {
        if is_first && self.form.format == CopyFormat::Csv && self.line_end == Some(LineEnd::Newline) {
            return 1 + record.iter().filter(|it| **it == b'\r').count() as u64;
        }
        self.of_record
    }

    /// Looks for the end of the record that begins `bytes`. `is_all`: nothing more comes.
    ///
    /// # Errors
    /// PostgreSQL's own for lines that end in another way than the first did, which no shard sees alone.
    pub fn next(&mut self, bytes: &[u8], is_all: bool) -> Result<Found, Refusal> {
        let found = match self.form.format {
            CopyFormat::Binary => binary::next(bytes, self.before_head, is_all),
            CopyFormat::Text | CopyFormat::Csv => self.next_line(bytes, is_all)?,
        };
        if matches!(found, Found::Head(_) | Found::Record(_) | Found::End(_)) {
            // The header of binary data is no line.
            self.lines += u64::from(!(self.before_head && self.is_binary()));
            (self.looked, self.before_head) = (0, false);
            self.of_record = self.lines - self.before;
            self.before = self.lines;
        }
        Ok(found)
    }

    fn next_line(&mut self, bytes: &[u8], is_all: bool) -> Result<Found, Refusal> {
        let end = match self.line_end_in(bytes, is_all)? {
            Some(end) => end,
            // The last line may do without its end.
            None if is_all && !bytes.is_empty() => bytes.len(),
            None => return Ok(Found::More),
        };
        if self.before_head {
            return Ok(Found::Head(end));
        }
        if without_end(&bytes[..end]) == b"\\." {
            if self.form.format == CopyFormat::Csv {
                // The end of the data before PostgreSQL 18, a value since.
                return Err(Refusal::unsupported(
                    Reason::MultiShardWrite,
                    "a line \\. in CSV data for several shards is not supported",
                    "end the data without it, or quote the value",
                ));
            }
            return Ok(Found::End(end));
        }
        Ok(Found::Record(end))
    }

    /// The fields with these numbers, counted from 0, of a record that `next` has found.
    pub fn fields<'a>(&self, record: &'a [u8], wanted: &[usize]) -> Vec<CopyField<'a>> {
        let form = &self.form;
        match form.format {
            CopyFormat::Binary => binary::fields(record, wanted),
            CopyFormat::Text => text::fields(without_end(record), wanted, form, text::plain),
            CopyFormat::Csv => text::fields(without_end(record), wanted, form, text::csv),
        }
    }

    pub fn is_binary(&self) -> bool {
        self.form.format == CopyFormat::Binary
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn unlike_the_first(what: &'static str, csv: bool) -> Refusal {
    let (message, hint) = match (what, csv) {
        ("\\r", false) => {
            ("literal carriage return found in data", "use \"\\r\" to represent carriage return")
        }
        ("\\r", true) => {
            ("unquoted carriage return found in data", "use quoted CSV field to represent carriage return")
        }
        (_, false) => ("literal newline found in data", "use \"\\n\" to represent newline"),
        (_, true) => ("unquoted newline found in data", "use quoted CSV field to represent newline"),
    };
    Refusal::new(Reason::Protocol, SqlState("22P04"), message).hint(hint)
}

#[cfg(test)]
mod tests;

//! The text and the CSV format (manual, "COPY", "File Formats").

use std::borrow::Cow;

use super::{CopyField, CopyReader, LineEnd, unlike_the_first};
use crate::base::Refusal;
use crate::sql::{CopyForm, CopyFormat, copy_unescaped};

/// Where a line ends.
enum End {
    At(usize),
    /// The next byte tells.
    More,
}

impl CopyReader {
    /// Behind the first line of `bytes`, looked for from where the last look ended.
    pub(super) fn line_end_in(&mut self, bytes: &[u8], is_all: bool) -> Result<Option<usize>, Refusal> {
        let csv = self.form.format == CopyFormat::Csv;
        while let Some(byte) = bytes.get(self.looked).copied() {
            if csv {
                self.look_at_quotes(byte);
            } else if byte == b'\\' {
                // It takes the next byte with it, whatever that is.
                if self.looked + 1 >= bytes.len() && !is_all {
                    return Ok(None);
                }
                self.looked += 2;
                continue;
            }
            if matches!(byte, b'\n' | b'\r') && !self.in_quote {
                return Ok(match self.line_end(bytes, byte, is_all, csv)? {
                    End::At(end) => Some(end),
                    // Looked at again, which toggles nothing: it is no quote.
                    End::More => None,
                });
            }
            self.looked += 1;
        }
        Ok(None)
    }

    fn look_at_quotes(&mut self, byte: u8) {
        let form = &self.form;
        let escape = (form.escape != form.quote).then_some(form.escape);
        if self.in_quote && Some(byte) == escape {
            self.was_escape = !self.was_escape;
        }
        if byte == form.quote && !self.was_escape {
            self.in_quote = !self.in_quote;
        }
        if Some(byte) != escape {
            self.was_escape = false;
        }
        let counted = if self.line_end == Some(LineEnd::Newline) { b'\n' } else { b'\r' };
        if self.in_quote && byte == counted {
            self.lines += 1;
        }
    }

    fn line_end(&mut self, bytes: &[u8], byte: u8, is_all: bool, csv: bool) -> Result<End, Refusal> {
        if byte == b'\n' {
            return match self.line_end {
                None | Some(LineEnd::Newline) => {
                    self.line_end = Some(LineEnd::Newline);
                    Ok(End::At(self.looked + 1))
                }
                _ => Err(unlike_the_first("\\n", csv)),
            };
        }
        let next = bytes.get(self.looked + 1);
        match self.line_end {
            Some(LineEnd::Newline) => Err(unlike_the_first("\\r", csv)),
            Some(LineEnd::Return) => Ok(End::At(self.looked + 1)),
            _ if next.is_none() && !is_all => Ok(End::More),
            before if next == Some(&b'\n') => {
                self.line_end = before.or(Some(LineEnd::Both));
                Ok(End::At(self.looked + 2))
            }
            Some(_) => Err(unlike_the_first("\\r", csv)),
            None => {
                self.line_end = Some(LineEnd::Return);
                Ok(End::At(self.looked + 1))
            }
        }
    }
}

/// One field from the start of the bytes, and where the next one starts, if there is one.
type Read<'a> = (CopyField<'a>, Option<usize>);

pub(super) fn fields<'a>(
    line: &'a [u8],
    wanted: &[usize],
    form: &CopyForm,
    read: for<'b> fn(&'b [u8], &CopyForm) -> Read<'b>,
) -> Vec<CopyField<'a>> {
    let mut found = vec![CopyField::Missing; wanted.len()];
    let last = wanted.iter().max().copied().unwrap_or(0);
    let mut rest = Some(line);
    for index in 0..=last {
        let Some(line) = rest else { break };
        let (field, next) = read(line, form);
        for (at, _) in wanted.iter().enumerate().filter(|it| *it.1 == index) {
            found[at] = field.clone();
        }
        rest = next.and_then(|it| line.get(it..));
    }
    found
}

fn marker(raw: &[u8], form: &CopyForm) -> Option<CopyField<'static>> {
    match raw {
        _ if raw == form.null.as_bytes() => Some(CopyField::Null),
        _ if form.default.as_ref().is_some_and(|it| it.as_bytes() == raw) => Some(CopyField::Default),
        _ => None,
    }
}

pub(super) fn plain<'a>(line: &'a [u8], form: &CopyForm) -> Read<'a> {
    let mut at = 0;
    while at < line.len() && line[at] != form.delimiter {
        at += if line[at] == b'\\' { 2 } else { 1 };
    }
    let end = at.min(line.len());
    let raw = &line[..end];
    let field = marker(raw, form).unwrap_or_else(|| CopyField::Value(copy_unescaped(raw)));
    (field, (end < line.len()).then_some(end + 1))
}

pub(super) fn csv<'a>(line: &'a [u8], form: &CopyForm) -> Read<'a> {
    let (mut value, mut at, mut in_quote, mut was_quoted) = (Vec::new(), 0, false, false);
    while let Some(byte) = line.get(at).copied() {
        at += 1;
        match in_quote {
            false if byte == form.delimiter => {
                at -= 1;
                break;
            }
            false if byte == form.quote => (in_quote, was_quoted) = (true, true),
            true if byte == form.escape
                && line.get(at).is_some_and(|it| *it == form.escape || *it == form.quote) =>
            {
                value.push(line[at]);
                at += 1;
            }
            true if byte == form.quote => in_quote = false,
            _ => value.push(byte),
        }
    }
    let field = match marker(&line[..at], form).filter(|_| !was_quoted) {
        Some(field) => field,
        None => CopyField::Value(Cow::Owned(value)),
    };
    (field, (at < line.len()).then_some(at + 1))
}

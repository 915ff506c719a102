//! PostgreSQL's lexical rules (`src/backend/parser/scan.l`, version 18) as an iterator of tokens over
//! bytes, with `standard_conforming_strings = on`. White space and comments are passed over.

use std::ops::Range;

use smallvec::SmallVec;

use super::hint;
use super::scan::LiteralKind;

/// What a token is, as far as routing needs to know: keywords and names are both `Word`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an unquoted name.
    Word,
    /// The `N` of `N'...'`, which is the keyword NCHAR, not a type name `n`.
    NationalPrefix,
    /// `"..."`, with its quotes.
    QuotedName,
    /// `U&"..."`.
    UnicodeName,
    Literal(LiteralKind),
    /// `$n`.
    Param,
    /// An operator, or a mark such as `::` that may be one.
    Operator,
    /// One of `, ( ) [ ] ;`, which are never part of anything longer.
    Punctuation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

/// The text is not lexically PostgreSQL's: an unterminated quote, junk after a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub at: usize,
}

/// What has a meaning of its own between single quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Two quotes are one.
    Plain,
    /// A backslash takes the next byte with it.
    Escapes,
    /// Nothing: the next quote ends a bit string.
    Bits,
}

const OTHER: u8 = 0;
const SPACE: u8 = 1;
const LETTER: u8 = 2;
const DIGIT: u8 = 3;
const OPERATOR: u8 = 4;
const SINGLE: u8 = 5;
const QUOTE: u8 = 6;
const DOUBLE_QUOTE: u8 = 7;
const DOLLAR: u8 = 8;
const DOT: u8 = 9;
const COLON: u8 = 10;

/// Classes of bytes, after the character sets at the top of `scan.l`.
const CLASS: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = match at as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => LETTER,
            b'0'..=b'9' => DIGIT,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/'
            | b'%' | b'<' | b'>' | b'=' => OPERATOR,
            b',' | b'(' | b')' | b'[' | b']' | b';' => SINGLE,
            b'\'' => QUOTE,
            b'"' => DOUBLE_QUOTE,
            b'$' => DOLLAR,
            b'.' => DOT,
            b':' => COLON,
            _ => OTHER,
        };
        at += 1;
    }
    table
};

fn class(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

fn starts_name(byte: u8) -> bool {
    class(byte) == LETTER
}

/// `ident_cont`: letters, digits and the dollar sign. A table of its own: most bytes of a statement are
/// asked this and nothing else.
const CONTINUES_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = matches!(CLASS[at], LETTER | DIGIT | DOLLAR);
        at += 1;
    }
    table
};

#[inline]
fn continues_name(byte: u8) -> bool {
    CONTINUES_NAME[usize::from(byte)]
}

/// Whether a token that this byte is the last of, or white space behind it, leaves whatever literal follows as it is; and whether a
/// number in front of it ends there.
pub(super) fn ends_token(byte: u8) -> bool {
    matches!(class(byte), SPACE | SINGLE | OPERATOR)
}

/// Where the integer ends that begins at `start`, if that is plain: digits, and behind them the end of the text or what ends every
/// number. `token` finds the same one there; others it finds alone (`0x1F`, `1_000`, `5::int`).
pub(super) fn plain_integer_end(text: &[u8], start: usize) -> Option<usize> {
    let digits = text.get(start..)?.iter().take_while(|it| it.is_ascii_digit()).count();
    let end = start + digits;
    let is_end = text.get(end).is_none_or(|it| ends_token(*it));
    (digits > 0 && is_end).then_some(end)
}

pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// Comments passed so far that hold routing hints.
    pub(super) hints: SmallVec<[Range<usize>; 1]>,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer::starting_at(text, 0)
    }

    /// From a place on at which a token may start.
    pub(super) fn starting_at(text: &'a [u8], at: usize) -> Lexer<'a> {
        Lexer { text, at, hints: SmallVec::new() }
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        // PostgreSQL's text ends at the first NUL, and NUL is of no class.
        self.text.get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn run(&self, at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest.iter().position(|it| !wanted(*it)).unwrap_or(rest.len())
    }

    /// The next token; `None` at the end of the text.
    #[inline]
    pub fn token(&mut self) -> Result<Option<Token>, Malformed> {
        self.skip_blank()?;
        let start = self.at;
        let Some(&first) = self.text.get(start) else { return Ok(None) };
        let (kind, end) = match class(first) {
            LETTER => self.word_or_prefixed(start, first)?,
            SINGLE => (TokenKind::Punctuation, start + 1),
            DIGIT => self.number(start)?,
            OPERATOR => (TokenKind::Operator, self.operator(start)?),
            QUOTE => (TokenKind::Literal(LiteralKind::String), self.quoted(start, Inside::Plain)?),
            DOUBLE_QUOTE => (TokenKind::QuotedName, self.quoted_name(start)?),
            DOLLAR => self.dollar(start)?,
            DOT => self.dot(start)?,
            COLON => (TokenKind::Operator, self.colon(start)),
            // PostgreSQL's scanner hands such a byte to the grammar, which knows none of them.
            _ => return Err(Malformed { at: start }),
        };
        self.at = end;
        Ok(Some(Token { kind, start, end }))
    }

    #[inline]
    fn skip_blank(&mut self) -> Result<(), Malformed> {
        while let Some(&first) = self.text.get(self.at) {
            match first {
                _ if class(first) == SPACE => self.at += 1,
                b'-' if self.byte(self.at + 1) == b'-' => self.at = self.line_end(self.at),
                b'/' if self.byte(self.at + 1) == b'*' => self.comment()?,
                _ => break,
            }
        }
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Malformed> {
        let comment = self.at..self.block_comment(self.at)?;
        self.at = comment.end;
        if hint::is_hint(&self.text[comment.clone()]) {
            self.hints.push(comment);
        }
        Ok(())
    }

    fn line_end(&self, at: usize) -> usize {
        self.run(at, |it| it != b'\n' && it != b'\r')
    }

    /// Block comments nest (`xcstart` inside state `xc`).
    fn block_comment(&self, start: usize) -> Result<usize, Malformed> {
        let (mut at, mut depth) = (start + 2, 1usize);
        while at < self.text.len() {
            match (self.byte(at), self.byte(at + 1)) {
                (b'/', b'*') => (at, depth) = (at + 2, depth + 1),
                (b'*', b'/') if depth == 1 => return Ok(at + 2),
                (b'*', b'/') => (at, depth) = (at + 2, depth - 1),
                _ => at += 1,
            }
        }
        Err(Malformed { at: start })
    }

    #[inline]
    fn word_or_prefixed(&self, start: usize, first: u8) -> Result<(TokenKind, usize), Malformed> {
        let next = self.byte(start + 1);
        if next == b'\'' {
            let literal = match first | 0x20 {
                b'b' => Some((LiteralKind::Bits, Inside::Bits)),
                b'x' => Some((LiteralKind::HexBits, Inside::Bits)),
                b'e' => Some((LiteralKind::EscapeString, Inside::Escapes)),
                b'n' => return Ok((TokenKind::NationalPrefix, start + 1)),
                _ => None,
            };
            if let Some((kind, inside)) = literal {
                return Ok((TokenKind::Literal(kind), self.quoted(start + 1, inside)?));
            }
        }
        if first | 0x20 == b'u' && next == b'&' {
            match self.byte(start + 2) {
                b'\'' => {
                    let end = self.quoted(start + 2, Inside::Plain)?;
                    return Ok((TokenKind::Literal(LiteralKind::UnicodeString), end));
                }
                b'"' => return Ok((TokenKind::UnicodeName, self.quoted_name(start + 2)?)),
                _ => {}
            }
        }
        Ok((TokenKind::Word, self.run(start + 1, continues_name)))
    }

    /// From the opening quote at `start` to behind the last closing one: a quote, white space with a
    /// newline and another quote go on with the same literal (`quotecontinue`).
    fn quoted(&self, start: usize, inside: Inside) -> Result<usize, Malformed> {
        let mut at = start + 1;
        loop {
            match self.text.get(at) {
                None => return Err(Malformed { at: start }),
                Some(b'\\') if inside == Inside::Escapes => at += 2,
                Some(b'\'') if inside != Inside::Bits && self.byte(at + 1) == b'\'' => at += 2,
                Some(b'\'') => match continuation(self.text, at + 1) {
                    Some(next) => at = next,
                    None => return Ok(at + 1),
                },
                Some(_) => at += 1,
            }
        }
    }

    fn quoted_name(&self, start: usize) -> Result<usize, Malformed> {
        let mut at = start + 1;
        loop {
            match self.text.get(at) {
                None => return Err(Malformed { at: start }),
                Some(b'"') if self.byte(at + 1) == b'"' => at += 2,
                // A zero-length delimited identifier is an error.
                Some(b'"') if at == start + 1 => return Err(Malformed { at: start }),
                Some(b'"') => return Ok(at + 1),
                Some(_) => at += 1,
            }
        }
    }

    fn dollar(&self, start: usize) -> Result<(TokenKind, usize), Malformed> {
        if self.byte(start + 1).is_ascii_digit() {
            let end = self.run(start + 1, |it| it.is_ascii_digit());
            // libpg_query ends the parameter where a name follows, PostgreSQL 15 and later say junk.
            return Ok((TokenKind::Param, end));
        }
        let mut end = start + 1;
        if starts_name(self.byte(end)) {
            end = self.run(end, |it| matches!(class(it), LETTER | DIGIT));
        }
        if self.byte(end) != b'$' {
            return Err(Malformed { at: start });
        }
        let tag = &self.text[start..=end];
        let body = end + 1;
        match memchr::memmem::find(&self.text[body..], tag) {
            Some(at) => Ok((TokenKind::Literal(LiteralKind::DollarString), body + at + tag.len())),
            None => Err(Malformed { at: start }),
        }
    }

    fn dot(&self, start: usize) -> Result<(TokenKind, usize), Malformed> {
        match self.byte(start + 1) {
            b'.' => Ok((TokenKind::Operator, start + 2)),
            b'0'..=b'9' => self.number(start),
            _ => Ok((TokenKind::Operator, start + 1)),
        }
    }

    fn colon(&self, start: usize) -> usize {
        start + if matches!(self.byte(start + 1), b':' | b'=') { 2 } else { 1 }
    }

    #[inline]
    fn number(&self, start: usize) -> Result<(TokenKind, usize), Malformed> {
        if self.byte(start) == b'0' {
            let radix: Option<fn(u8) -> bool> = match self.byte(start + 1) | 0x20 {
                b'x' => Some(|it| it.is_ascii_hexdigit()),
                b'o' => Some(|it| matches!(it, b'0'..=b'7')),
                b'b' => Some(|it| matches!(it, b'0' | b'1')),
                _ => None,
            };
            if let Some(is_digit) = radix {
                let end = self.digits(start + 2, is_digit, true);
                // With no digit, or another behind them, the whole is a number and a name: junk.
                let junk = end == start + 2 || continues_name(self.byte(end));
                return self.numeral(LiteralKind::Integer, start, end, junk);
            }
        }
        let mut kind = LiteralKind::Integer;
        let mut end = self.digits(start, |it| it.is_ascii_digit(), false);
        // `1..10` is a number and two dots (`numericfail`).
        if self.byte(end) == b'.' && self.byte(end + 1) != b'.' {
            kind = LiteralKind::Float;
            end = self.digits(end + 1, |it| it.is_ascii_digit(), false);
        }
        if self.byte(end) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.byte(end + 1), b'+' | b'-'));
            let exponent = end + 1 + sign;
            if !self.byte(exponent).is_ascii_digit() {
                return Err(Malformed { at: start });
            }
            kind = LiteralKind::Float;
            end = self.digits(exponent, |it| it.is_ascii_digit(), false);
        }
        self.numeral(kind, start, end, false)
    }

    /// Digits with single underscores between them; a radix prefix lets one underscore come first.
    #[inline]
    fn digits(&self, start: usize, is_digit: impl Fn(u8) -> bool, prefixed: bool) -> usize {
        let mut at = start;
        loop {
            if is_digit(self.byte(at)) {
                at += 1;
            } else if self.byte(at) == b'_' && (at > start || prefixed) && is_digit(self.byte(at + 1)) {
                at += 2;
            } else {
                return at;
            }
        }
    }

    /// A name right behind a number is junk (`integer_junk`, `numeric_junk`, `real_junk`).
    fn numeral(
        &self,
        kind: LiteralKind,
        start: usize,
        end: usize,
        junk: bool,
    ) -> Result<(TokenKind, usize), Malformed> {
        if junk || starts_name(self.byte(end)) {
            return Err(Malformed { at: start });
        }
        Ok((TokenKind::Literal(kind), end))
    }

    /// The longest run of operator characters, less what `scan.l` gives back: a comment that starts
    /// inside, and `+` or `-` at the end unless a character that SQL's own operators lack is there.
    #[inline]
    fn operator(&self, start: usize) -> Result<usize, Malformed> {
        let whole = self.run(start + 1, |it| class(it) == OPERATOR);
        if whole == start + 1 {
            return Ok(whole);
        }
        let run = &self.text[start..whole];
        let comment = run.windows(2).position(|it| it == b"/*" || it == b"--");
        let mut length = comment.unwrap_or(run.len());
        if matches!(run[length - 1], b'+' | b'-') && length > 1 {
            let special =
                |it: &u8| matches!(it, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
            if !run[..length - 1].iter().any(special) {
                while length > 1 && matches!(run[length - 1], b'+' | b'-') {
                    length -= 1;
                }
            }
        }
        // NAMEDATALEN: "operator too long".
        if length >= 64 { Err(Malformed { at: start }) } else { Ok(start + length) }
    }
}

/// Where the literal goes on behind a closing quote that ends at `at`, if it does: the byte after the
/// next opening quote. `--` comments count as white space there, block comments do not.
pub(super) fn continuation(text: &[u8], mut at: usize) -> Option<usize> {
    let mut newline = false;
    loop {
        match text.get(at)? {
            b'\n' | b'\r' => newline = true,
            b'-' if text.get(at + 1) == Some(&b'-') => {
                while !matches!(text.get(at)?, b'\n' | b'\r') {
                    at += 1;
                }
                continue;
            }
            b'\'' if newline => return Some(at + 1),
            it if class(*it) == SPACE => {}
            _ => return None,
        }
        at += 1;
    }
}

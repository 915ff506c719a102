//! One pass over a statement's text: a fingerprint that forgets the values of literals, and where the
//! literals stand. What libpg_query says of a text holds for each text of the same fingerprint, so a
//! plan is compiled once and found by a hash of bytes.
//!
//! Two texts that mean different things, other than by the values of their literals, never share a
//! fingerprint: the hashed form below can be read back to the tokens.

use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::hint;
use super::lexer::{Lexer, TokenKind};

/// How a literal is written, which is part of the fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiteralKind {
    /// `7`, `1_000`, `0x1F`, `0o17`, `0b1`.
    Integer,
    /// `1.5`, `.5`, `1e3`.
    Float,
    /// `'...'`.
    String,
    /// `E'...'`, with backslash escapes.
    EscapeString,
    /// `U&'...'`.
    UnicodeString,
    /// `$tag$...$tag$`.
    DollarString,
    /// `B'...'`.
    Bits,
    /// `X'...'`.
    HexBits,
}

impl LiteralKind {
    /// The byte that stands for the literal in the hashed form: none that a name or a symbol starts with.
    fn mark(self) -> u8 {
        match self {
            LiteralKind::Integer => 1,
            LiteralKind::Float => 2,
            LiteralKind::String => 3,
            LiteralKind::EscapeString => 4,
            LiteralKind::UnicodeString => 5,
            LiteralKind::DollarString => 6,
            LiteralKind::Bits => 7,
            LiteralKind::HexBits => 8,
        }
    }
}

/// A literal's place in the text, quotes and prefix included; a sign in front is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal {
    pub kind: LiteralKind,
    pub start: u32,
    pub end: u32,
}

/// The literals of a text in their order. Eight fit without an allocation.
pub type Literals = SmallVec<[Literal; 8]>;

/// What a scan finds.
#[derive(Clone, Debug)]
pub struct Scan {
    pub fingerprint: u128,
    pub literals: Literals,
    /// A comment holds a routing hint.
    pub hinted: bool,
    /// False if PostgreSQL's scanner would refuse the text; then the fingerprint is of no use.
    pub well_formed: bool,
}

/// Scans `text` under `standard_conforming_strings = on`.
pub fn scan(text: &str) -> Scan {
    let bytes = text.as_bytes();
    let mut lexer = Lexer::new(bytes);
    let mut literals = Literals::new();
    let mut form = Form::new();
    // Offsets are kept in 32 bits; a message of the protocol is shorter than 2 GiB.
    let mut well_formed = u32::try_from(bytes.len()).is_ok();
    while well_formed {
        let token = match lexer.token() {
            Ok(Some(token)) => token,
            Ok(None) => break,
            Err(_) => {
                well_formed = false;
                break;
            }
        };
        let written = &bytes[token.start..token.end];
        match token.kind {
            TokenKind::Word => form.folded(written),
            TokenKind::Punctuation => form.byte(written[0]),
            TokenKind::Literal(kind) => {
                form.byte(kind.mark());
                literals.push(Literal { kind, start: token.start as u32, end: token.end as u32 });
            }
            TokenKind::Operator | TokenKind::Param | TokenKind::QuotedName | TokenKind::UnicodeName => {
                form.terminated(written);
            }
            TokenKind::NationalPrefix => form.folded(b"nchar"),
        }
    }
    for comment in &lexer.hints {
        form.byte(HINT);
        hint::form_of(&text[comment.clone()], |it| {
            it.iter().for_each(|byte| form.byte(*byte));
            // A value may have blanks; a text of the protocol has no NUL.
            form.byte(0);
        });
    }
    let hinted = !lexer.hints.is_empty();
    Scan { fingerprint: form.digest(), literals, hinted, well_formed }
}

/// Stands behind the tokens, in front of a routing hint: no name, symbol or literal starts with it.
const HINT: u8 = 9;

const FORM_BYTES: usize = 512;

/// The hashed form: tokens one after another, names in lower case. A punctuation mark and a
/// literal's mark are one byte that starts nothing else; all others end in a space, which none of them
/// ends with. A longer form goes through the streaming hash, which gives the same digest.
struct Form {
    bytes: [u8; FORM_BYTES],
    used: usize,
    flushed: Option<Xxh3Default>,
}

impl Form {
    #[inline]
    fn new() -> Form {
        Form { bytes: [0; FORM_BYTES], used: 0, flushed: None }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        if self.used == FORM_BYTES {
            self.flush();
        }
        self.bytes[self.used] = byte;
        self.used += 1;
    }

    /// PostgreSQL folds ASCII letters only where the encoding has several bytes
    /// (`downcase_identifier`), so other bytes stay apart.
    #[inline]
    fn folded(&mut self, name: &[u8]) {
        let Some(room) = self.bytes.get_mut(self.used..self.used + name.len() + 1) else {
            name.iter().for_each(|it| self.byte(it.to_ascii_lowercase()));
            return self.byte(b' ');
        };
        fold(name, room);
        room[name.len()] = b' ';
        self.used += name.len() + 1;
    }

    /// An operator, a parameter or a quoted name.
    #[inline]
    fn terminated(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|it| self.byte(*it));
        self.byte(b' ');
    }

    #[cold]
    fn flush(&mut self) {
        let stream = self.flushed.get_or_insert_with(Xxh3Default::new);
        stream.update(&self.bytes[..self.used]);
        self.used = 0;
    }

    #[inline]
    fn digest(mut self) -> u128 {
        if self.flushed.is_none() {
            return xxh3_128(&self.bytes[..self.used]);
        }
        self.flush();
        self.flushed.map_or(0, |it| it.digest128())
    }
}

/// Writes `name` in lower case to the start of `room`. Most names have 4 to 16 bytes: two words that may
/// overlap, in place of a loop over bytes.
#[inline]
fn fold(name: &[u8], room: &mut [u8]) {
    let last = name.len();
    if let (Some(head), Some(tail), 8..=16) = (name.first_chunk(), name.last_chunk(), last) {
        let (head, tail) = (folded_word(*head), folded_word(*tail));
        room[..8].copy_from_slice(&head);
        room[last - 8..last].copy_from_slice(&tail);
    } else if let (Some(&[a, b, c, d]), Some(&[e, f, g, h]), 4..=7) =
        (name.first_chunk(), name.last_chunk(), last)
    {
        let [a, b, c, d, e, f, g, h] = folded_word([a, b, c, d, e, f, g, h]);
        room[..4].copy_from_slice(&[a, b, c, d]);
        room[last - 4..last].copy_from_slice(&[e, f, g, h]);
    } else {
        for (to, from) in room.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
    }
}

/// Eight bytes at once: each that is an ASCII capital gets the bit that makes it small.
#[inline]
fn folded_word(bytes: [u8; 8]) -> [u8; 8] {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = EACH << 7;
    let word = u64::from_ne_bytes(bytes);
    let seven = word & !HIGH;
    // The high bit of a byte of `from_a` is set from 'A' on, of `past_z` behind 'Z'.
    let (from_a, past_z) = (seven + EACH * 0x3F, seven + EACH * 0x25);
    let capitals = from_a & !past_z & !word & HIGH;
    (word | capitals >> 2).to_ne_bytes()
}

#[cfg(test)]
mod tests;

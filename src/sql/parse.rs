//! From text to PostgreSQL's own parse tree, within bounds.

use parking_lot::Mutex;
use pg_query::protobuf::ParseResult;

use super::facts::Facts;
use super::lexer::Lexer;
use super::scan::Literal;
use super::split::{self, Splitting};
use super::utility;

/// A longer text is not parsed: its tree takes many times its size.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Texts and candidates for which the place of a syntax error is searched.
const POSITION_TEXT_BYTES_MAX: usize = 64 << 10;
const POSITION_CANDIDATES_MAX: usize = 32;

/// Why there are no facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotParsed {
    /// PostgreSQL's message, with the 1-based character it points at.
    Syntax { message: String, position: Option<u32> },
    /// Nested too deep or too long for the bounds here; PostgreSQL might take it.
    TooComplex,
}

/// PostgreSQL's parser. There is one in a process: libpg_query swaps the process's standard error while
/// it parses, which two threads must not do at once. That also bounds what a flood of new texts can take.
#[derive(Debug, Default)]
pub struct Parser {
    parsing: Mutex<()>,
}

impl Parser {
    pub fn new() -> Parser {
        Parser::default()
    }

    /// The facts of `text`, whose literals `scan` found.
    pub fn facts(&self, text: &str, literals: &[Literal]) -> Result<Facts, NotParsed> {
        let tree = match self.tree(text) {
            Ok(tree) => tree,
            Err(Failure::TooComplex) => return Err(NotParsed::TooComplex),
            Err(Failure::Message(message)) => {
                let position = self.position(text, &message);
                return Err(NotParsed::Syntax { message, position });
            }
        };
        Ok(utility::facts(text, literals, &tree))
    }

    /// The only statement of `text`, a SELECT, taken apart for several shards.
    pub fn split(&self, text: &str, literals: &[Literal]) -> Splitting {
        split::split(|marked| self.tree(marked).ok(), text, literals)
    }

    fn tree(&self, text: &str) -> Result<ParseResult, Failure> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Failure::TooComplex);
        }
        let _alone = self.parsing.lock();
        match pg_query::parse(text, 0) {
            Ok(result) => Ok(result.protobuf),
            Err(pg_query::Error::Parse(message)) if is_limit(&message) => Err(Failure::TooComplex),
            Err(pg_query::Error::Parse(message)) => Err(Failure::Message(message)),
            // prost gives up at a depth of 100, which bounds every walk over the tree.
            Err(pg_query::Error::Decode(_)) => Err(Failure::TooComplex),
            Err(other) => Err(Failure::Message(other.to_string())),
        }
    }

    /// The crate keeps libpg_query's message and drops its cursor. The message quotes the token it stopped
    /// at; where that stands more than once, the parser stops at the first whose prefix fails alike.
    fn position(&self, text: &str, message: &str) -> Option<u32> {
        if message.ends_with("at end of input") {
            return character(text, text.len());
        }
        let near = message.split_once(" at or near \"")?.1.strip_suffix('"')?;
        let mut starts = Vec::new();
        let mut lexer = Lexer::new(text.as_bytes());
        loop {
            match lexer.token() {
                Ok(Some(token)) => starts.push(token.start),
                Ok(None) => break,
                Err(malformed) => {
                    starts.push(malformed.at);
                    break;
                }
            }
        }
        starts.retain(|it| text.get(*it..).is_some_and(|rest| rest.starts_with(near)));
        if let [only] = starts[..] {
            return character(text, only);
        }
        if text.len() > POSITION_TEXT_BYTES_MAX {
            return None;
        }
        let fails_there = |start: &usize| {
            let prefix = text.get(..start + near.len()).unwrap_or(text);
            matches!(self.tree(prefix), Err(Failure::Message(it)) if it == message)
        };
        let found = starts.iter().take(POSITION_CANDIDATES_MAX).find(|it| fails_there(it))?;
        character(text, *found)
    }
}

enum Failure {
    Message(String),
    TooComplex,
}

fn is_limit(message: &str) -> bool {
    ["stack depth limit exceeded", "memory exhausted", "nested too deeply"]
        .iter()
        .any(|it| message.contains(it))
}

fn character(text: &str, byte: usize) -> Option<u32> {
    u32::try_from(text.get(..byte)?.chars().count() + 1).ok()
}

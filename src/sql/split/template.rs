//! SQL with room for a text's literals and with parameters numbered anew.

use super::super::lexer::{Lexer, TokenKind};
use super::super::scan::Literal;
use super::sentinel;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The nth literal of the scan, as it is written.
    Literal(u32),
    /// `$n` of the statement.
    Param(u16),
}

/// A part of a statement's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A text made of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    pub text: String,
    /// Which parameter of the statement stands as `$1`, `$2`, ... here.
    pub params: Vec<u16>,
}

impl Template {
    /// Of a text printed from a tree with sentinels; `None` where it is not lexically sound.
    pub(super) fn read(printed: &str) -> Option<Template> {
        let mut template = Template::default();
        let mut lexer = Lexer::new(printed.as_bytes());
        let mut from = 0;
        while let Some(token) = lexer.token().ok()? {
            let written = printed.get(token.start..token.end)?;
            let piece = match token.kind {
                TokenKind::Literal(kind) => sentinel::of_token(kind, written).map(Piece::Literal),
                TokenKind::Param => Some(Piece::Param(written.get(1..)?.parse().ok()?)),
                _ => None,
            };
            if let Some(piece) = piece {
                template.push_str(printed.get(from..token.start)?);
                template.pieces.push(piece);
                from = token.end;
            }
        }
        template.push_str(printed.get(from..)?);
        Some(template)
    }

    pub fn text(text: &str) -> Template {
        let mut template = Template::default();
        template.push_str(text);
        template
    }

    pub fn literal(index: u32, negative: bool) -> Template {
        // A number of two words would bind otherwise than one.
        let mut template = Template::text(if negative { "(-" } else { "" });
        template.pieces.push(Piece::Literal(index));
        if negative {
            template.push_str(")");
        }
        template
    }

    pub fn param(number: u16) -> Template {
        Template { pieces: vec![Piece::Param(number)] }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub fn push_str(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    pub fn push(&mut self, other: &Template) {
        for piece in &other.pieces {
            match piece {
                Piece::Text(text) => self.push_str(text),
                piece => self.pieces.push(piece.clone()),
            }
        }
    }

    /// The literals in it, which a plan depends on where their values were looked at.
    pub fn literals(&self) -> impl Iterator<Item = u32> {
        self.pieces.iter().filter_map(|it| match it {
            Piece::Literal(index) => Some(*index),
            _ => None,
        })
    }

    /// With the literals of `text`. Parameters keep their numbers or are numbered from 1 in the order in which
    /// they come first.
    pub fn fill(&self, text: &str, literals: &[Literal]) -> Option<Filled> {
        let mut filled = Filled { text: String::new(), params: Vec::new() };
        for piece in &self.pieces {
            match piece {
                Piece::Text(it) => filled.text.push_str(it),
                Piece::Literal(index) => {
                    let literal = literals.get(*index as usize)?;
                    // `7AND` is no number and no word.
                    let glued = filled.text.ends_with(|it: char| it.is_alphanumeric() || it == '_');
                    filled.text.push_str(if glued { " " } else { "" });
                    filled.text.push_str(literal.written(text));
                }
                Piece::Param(number) => {
                    let known = filled.params.iter().position(|it| it == number);
                    let at = known.unwrap_or_else(|| {
                        filled.params.push(*number);
                        filled.params.len() - 1
                    });
                    filled.text.push_str(&format!("${}", at + 1));
                }
            }
        }
        Some(filled)
    }

    /// As written in `text`, to tell whether two parts mean the same. Parameters keep their numbers.
    pub fn written(&self, text: &str, literals: &[Literal]) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(it) => out.push_str(it),
                Piece::Literal(index) => {
                    out.push_str(literals.get(*index as usize).map_or("", |it| it.written(text)));
                }
                Piece::Param(number) => out.push_str(&format!("${number}")),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::scan::scan;
    use super::super::sentinel::with_sentinels;
    use super::*;

    #[test]
    fn literals_and_parameters_find_their_places() {
        let text = "SELECT $3, 7, 1.5, 'it''s', E'a\\n', $3 FROM t WHERE a = $1 AND b = -7";
        let literals = scan(text).literals;
        let template = Template::read(&with_sentinels(text, &literals).unwrap()).unwrap();
        let filled = template.fill(text, &literals).unwrap();
        assert_eq!(filled.text, text.replace("$1", "$2").replace("$3", "$1"));
        assert_eq!(filled.params, [3, 1]);
        let other = "SELECT $3, 8, 2.5, 'no', E'b', $3 FROM t WHERE a = $1 AND b = -9";
        let filled = template.fill(other, &scan(other).literals).unwrap();
        assert_eq!(filled.text, other.replace("$1", "$2").replace("$3", "$1"));
    }

    #[test]
    fn some_kinds_have_no_sentinel() {
        for text in ["SELECT B'101'", "SELECT U&'\\0041'"] {
            assert_eq!(with_sentinels(text, &scan(text).literals), None, "{text}");
        }
    }
}

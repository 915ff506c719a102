//! As much of PromQL as the rules and dashboards of `config/` use, to check their names: tokens, parentheses, durations,
//! label matchers and grouping. What it does not know it refuses.

use std::collections::BTreeSet;

/// Functions and aggregations that may be used.
const FUNCTIONS: &[&str] = &[
    "rate",
    "increase",
    "sum",
    "max",
    "min",
    "avg",
    "count",
    "topk",
    "histogram_quantile",
    "clamp_min",
    "avg_over_time",
    "max_over_time",
    "min_over_time",
    "vector",
    "absent",
];
const GROUPINGS: &[&str] = &["by", "without", "on", "ignoring"];
const OPERATORS: &[&str] = &["and", "or", "unless", "bool"];

/// What an expression names.
#[derive(Debug, Default)]
pub struct Expression {
    pub selectors: Vec<Selector>,
    /// Labels in `by`, `on` and the like.
    pub grouped: BTreeSet<String>,
    /// Some `by` says which labels are left.
    pub groups: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
    /// Behind it stands a duration in brackets.
    pub is_range: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Number,
    Text(String),
    Mark(&'static str),
}

const MARKS: &[&str] = &[
    "=~", "!~", "!=", "==", ">=", "<=", "(", ")", "{", "}", "[", "]", ",", "=", "<", ">", "+", "-", "*", "/",
];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_').unwrap_or(rest.len());
            found.push(Token::Word(rest[..length].to_owned()));
            length
        } else if first.is_ascii_digit() {
            let length = rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '.').unwrap_or(rest.len());
            let number = &rest[..length];
            found.push(if number.parse::<f64>().is_ok() {
                Token::Number
            } else if is_duration(number) {
                Token::Word(number.to_owned())
            } else {
                return Err(format!("neither number nor duration: {number}"));
            });
            length
        } else if first == '"' {
            let end = rest[1..].find('"').ok_or("an open quote")? + 1;
            let value = &rest[1..end];
            if value.contains('\\') {
                return Err(format!("an escape: {value}"));
            }
            found.push(Token::Text(value.to_owned()));
            end + 1
        } else {
            let mark = MARKS.iter().find(|it| rest.starts_with(**it)).ok_or(format!("not PromQL: {rest}"))?;
            found.push(Token::Mark(mark));
            mark.len()
        };
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

/// `5m`, `1h30m`.
pub fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
        let unit = ["ms", "s", "m", "h", "d", "w", "y"].into_iter().find(|it| rest[digits..].starts_with(it));
        match unit {
            Some(unit) if digits > 0 => rest = &rest[digits + unit.len()..],
            _ => return false,
        }
    }
    !text.is_empty()
}

pub fn parse(text: &str) -> Result<Expression, String> {
    let tokens = tokens(text)?;
    let mut expression = Expression::default();
    let (mut open, mut at) = (Vec::new(), 0);
    // Whether an operand may come: two in a row, or an operator without one, are no expression.
    let mut wants_operand = true;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let next = tokens.get(at);
        match token {
            Token::Word(word) if GROUPINGS.contains(&&**word) => {
                let (labels, end) = labels(&tokens, at)?;
                expression.groups |= word == "by";
                expression.grouped.extend(labels);
                at = end;
            }
            Token::Word(word) if OPERATORS.contains(&&**word) => {
                if wants_operand && word != "bool" {
                    return Err(format!("nothing in front of `{word}`"));
                }
                wants_operand = true;
            }
            Token::Word(word) if FUNCTIONS.contains(&&**word) => {
                let called = matches!(next, Some(Token::Mark("(")))
                    || matches!(next, Some(Token::Word(it)) if GROUPINGS.contains(&&**it));
                if !called || !wants_operand {
                    return Err(format!("`{word}` is not called"));
                }
            }
            Token::Word(_) if !wants_operand => return Err(format!("two operands in a row: {text}")),
            Token::Word(word) => {
                if matches!(next, Some(Token::Mark("("))) {
                    return Err(format!("no function that is known here: {word}"));
                }
                let (selector, end) = selector(word, &tokens, at)?;
                expression.selectors.push(selector);
                (at, wants_operand) = (end, false);
            }
            Token::Number if wants_operand => wants_operand = false,
            Token::Mark("(") if wants_operand => open.push("("),
            Token::Mark(")") => {
                if open.pop().is_none() || wants_operand {
                    return Err(format!("a parenthesis too many: {text}"));
                }
            }
            Token::Mark("," | "==" | "!=" | ">" | "<" | ">=" | "<=" | "+" | "-" | "*" | "/")
                if !wants_operand =>
            {
                wants_operand = true;
            }
            other => return Err(format!("{other:?} is out of place: {text}")),
        }
    }
    if !open.is_empty() || wants_operand {
        return Err(format!("unfinished: {text}"));
    }
    Ok(expression)
}

/// `(a, b)`, from its parenthesis on.
fn labels(tokens: &[Token], mut at: usize) -> Result<(Vec<String>, usize), String> {
    let mut found = Vec::new();
    if tokens.get(at) != Some(&Token::Mark("(")) {
        return Err("no list of labels behind a grouping".to_owned());
    }
    loop {
        match (tokens.get(at + 1), tokens.get(at + 2)) {
            (Some(Token::Word(label)), Some(Token::Mark(mark @ ("," | ")")))) => {
                found.push(label.clone());
                at += 2;
                if *mark == ")" {
                    return Ok((found, at + 1));
                }
            }
            other => return Err(format!("no list of labels: {other:?}")),
        }
    }
}

fn selector(metric: &str, tokens: &[Token], mut at: usize) -> Result<(Selector, usize), String> {
    let mut selector = Selector { metric: metric.to_owned(), ..Selector::default() };
    if tokens.get(at) == Some(&Token::Mark("{")) {
        loop {
            let matcher = tokens.get(at + 1..at + 5).ok_or("an open brace")?;
            let [
                Token::Word(label),
                Token::Mark(operator @ ("=" | "!=" | "=~" | "!~")),
                Token::Text(value),
                Token::Mark(mark),
            ] = matcher
            else {
                return Err(format!("no label matcher: {matcher:?}"));
            };
            selector.matchers.push((label.clone(), (*operator).to_owned(), value.clone()));
            at += 4;
            match *mark {
                "," => {}
                "}" => break,
                other => return Err(format!("`{other}` behind a label matcher")),
            }
        }
        at += 1;
    }
    if tokens.get(at) == Some(&Token::Mark("[")) {
        match tokens.get(at + 1..at + 3) {
            Some([Token::Word(duration), Token::Mark("]")]) if is_duration(duration) => {}
            other => return Err(format!("no duration: {other:?}")),
        }
        selector.is_range = true;
        at += 3;
    }
    Ok((selector, at))
}

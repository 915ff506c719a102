//! Statements to compare, and what of their answers must be equal: columns, rows, command tag, SQLSTATE.

use std::fmt::Write;

use crate::harness::Fallible;
use crate::harness::wire::{Message, Wire, bind_or_null, describe, execute, parse, query, sync};

/// Statements that run one after the other in one session; several are within one transaction block.
pub struct Case {
    /// File and line, or number in a random run.
    pub name: String,
    /// As written.
    pub text: String,
    pub steps: Vec<Step>,
}

pub struct Step {
    pub sql: String,
    /// Values of parameters in text, which make it an extended query.
    pub params: Option<Vec<Option<String>>>,
    /// ORDER BY fixes the order of rows.
    pub ordered: bool,
}

impl Case {
    /// ` ;; ` between steps, `=` in front of a step whose rows are in order, `@ a | b` behind one with
    /// parameters.
    pub fn read(name: String, text: &str) -> Case {
        let step = |text: &str| {
            let text = text.trim();
            let (ordered, text) = text.strip_prefix('=').map_or((false, text), |it| (true, it.trim()));
            let value = |it: &str| Some(it.trim().to_owned()).filter(|it| it != "NULL");
            let (sql, params) = match text.rsplit_once(" @ ") {
                Some((sql, params)) => (sql, Some(params.split(" | ").map(value).collect())),
                None => (text, None),
            };
            Step { sql: sql.trim().trim_end_matches(';').to_owned(), params, ordered }
        };
        Case { name, text: text.to_owned(), steps: text.split(" ;; ").map(step).collect() }
    }

    pub fn writes(&self) -> bool {
        let reads =
            ["select", "values", "with", "table", "begin", "commit", "rollback", "set", "show", "declare"];
        self.steps.iter().any(|it| {
            let sql = it.sql.trim_start_matches('(').to_ascii_lowercase();
            let changes = ["insert ", "update ", "delete ", "merge "].iter().any(|it| sql.contains(it));
            changes || !reads.iter().any(|it| sql.starts_with(it))
        })
    }
}

/// One case a line; lines that begin with `--` are comments.
pub fn read_cases(file: &str, text: &str) -> Vec<Case> {
    let lines = text.lines().enumerate().map(|(index, it)| (index + 1, it.trim()));
    let lines = lines.filter(|(_, it)| !it.is_empty() && !it.starts_with("--"));
    lines.map(|(line, it)| Case::read(format!("{file}:{line}"), it)).collect()
}

/// What a step was answered with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Of each column: name, type, length, modifier, format.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<u8>>,
    pub tags: Vec<String>,
    /// SQLSTATE of the error.
    pub error: Option<String>,
    /// The error's text, which need not be equal.
    pub message: String,
}

impl Answer {
    /// Sorted where no order was asked for.
    pub fn settle(&mut self, ordered: bool) {
        if !ordered {
            self.rows.sort_unstable();
        }
        // Rows sent before an error depend on when it is met.
        if self.error.is_some() {
            self.rows.clear();
            self.columns.clear();
        }
    }

    pub fn differs(&self, other: &Answer) -> bool {
        let own = (&self.columns, &self.rows, &self.tags, &self.error);
        own != (&other.columns, &other.rows, &other.tags, &other.error)
    }

    pub fn shown(&self) -> String {
        let mut out = String::new();
        if let Some(state) = &self.error {
            let _ = write!(out, "error {state} {}; ", self.message);
        }
        let _ = write!(out, "tags {:?}, columns {:?}, {} rows", self.tags, self.columns, self.rows.len());
        for row in self.rows.iter().take(12) {
            let _ = write!(out, "\n      {}", row_text(row));
        }
        out
    }
}

fn row_text(body: &[u8]) -> String {
    let mut fields = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        let value = after.get(..length.max(0) as usize).unwrap_or_default();
        fields.push(if length < 0 { "NULL".to_owned() } else { value.escape_ascii().to_string() });
        rest = after.get(length.max(0) as usize..).unwrap_or_default();
    }
    fields.join(" | ")
}

/// How a step is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Simple,
    /// Parse, Describe of the statement, Bind, Describe of the portal, Execute.
    Extended {
        binary: bool,
    },
}

/// Asks and reads to ReadyForQuery. An error of the connection is an error here.
pub async fn ask(wire: &mut Wire, step: &Step, way: Way) -> Fallible<Answer> {
    let way = match way {
        Way::Simple if step.params.is_some() => Way::Extended { binary: false },
        way => way,
    };
    let bytes = match way {
        Way::Simple => query(&step.sql),
        Way::Extended { binary } => {
            let params = step.params.as_deref().unwrap_or_default();
            let params: Vec<_> = params.iter().map(Option::as_deref).collect();
            let bound = bind_or_null("", "", &params, binary);
            let parts =
                [parse("", &step.sql), describe('S', ""), bound, describe('P', ""), execute("", 0), sync()];
            parts.concat()
        }
    };
    let mut answer = Answer::default();
    for message in wire.ask(&bytes, 1).await? {
        note(&mut answer, &message);
    }
    answer.settle(step.ordered);
    Ok(answer)
}

fn note(answer: &mut Answer, message: &Message) {
    match message.tag {
        'T' => answer.columns.push(columns(message).unwrap_or_default()),
        'n' => answer.columns.push("no data".to_owned()),
        't' => answer.columns.push(format!("parameters {}", message.body.escape_ascii())),
        'D' => answer.rows.push(message.body.clone()),
        'C' => answer.tags.push(String::from_utf8_lossy(&message.body).trim_end_matches('\0').to_owned()),
        'I' => answer.tags.push("empty".to_owned()),
        'E' => {
            answer.error = message.field('C');
            let field = |code| message.field(code).map(|it| format!(" ({it})")).unwrap_or_default();
            answer.message = format!("{}{}", message.field('M').unwrap_or_default(), field('D'));
        }
        _ => {}
    }
}

/// Without the oid of the table, which is each database's own.
fn columns(message: &Message) -> Option<String> {
    let column = |(name, fixed): (&[u8], &[u8; 18])| {
        let others = fixed[4..].iter().map(|it| format!("{it:02x}")).collect::<String>();
        let kind = if fixed[..4] != [0; 4] { "column" } else { "expression" };
        format!("{} {kind} {others}", name.escape_ascii())
    };
    Some(message.columns()?.into_iter().map(column).collect::<Vec<_>>().join(", "))
}

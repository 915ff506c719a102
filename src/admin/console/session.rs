//! One client of the console, in either protocol.
//!
//! ```text
//!   idle ── BEGIN ──▶ open ── error ──▶ failed
//!    ▲                 │                  │
//!    └──── COMMIT, ROLLBACK ◀─────────────┘
//! ```
//! Transactions are there because drivers begin them; nothing here is undone by their end.

use std::collections::HashMap;
use std::future::poll_fn;
use std::task::Poll;

use super::Console;
use super::command::{self, Command, Word};
use super::tables;
use crate::base::{Reason, Refusal, SqlState};
use crate::client::{Place, Visitor, sent_away};
use crate::net::{Buffer, Stream};
use crate::proto::{Intake, Limits, Unit, UnitEnd};
use crate::wire::{self, Bind, Column, FrontendTag, Severity, Target, TxStatus, Value};

/// Prepared statements and portals of one client.
const NAMES_MAX: usize = 256;
/// Longer texts are no commands.
const UNIT: Limits = Limits { message_bytes_max: 1 << 16 };

/// What a session is told at its start. Drivers want a version to start with, which says what they may use.
fn parameters() -> [(&'static str, &'static str); 9] {
    [
        ("server_version", concat!("14.0 (keyway ", env!("CARGO_PKG_VERSION"), ")")),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "on"),
    ]
}

/// Why it is over.
enum End {
    Left,
    Fatal(Refusal),
}

struct Session<'a> {
    console: &'a Console,
    stream: Stream,
    place: Place,
    status: TxStatus,
    statements: HashMap<Vec<u8>, Prepared>,
    portals: HashMap<Vec<u8>, Portal>,
    /// Behind an error of an extended message everything up to Sync is ignored.
    skipping: bool,
}

/// A text that is one command, or none.
type Prepared = Option<Command>;

struct Portal {
    command: Prepared,
    /// Of the columns of the result.
    binary: Vec<bool>,
    /// What Execute has left to give, once it has run.
    left: Option<std::vec::IntoIter<Vec<Value>>>,
}

impl Portal {
    fn is_binary(&self, index: usize) -> bool {
        self.binary.get(index).copied().unwrap_or(false)
    }
}

pub(super) async fn serve(console: &Console, visitor: Visitor) {
    let Visitor { stream, buffer, place } = visitor;
    place.record.wake_this_task().await;
    let mut session = Session {
        console,
        stream,
        place,
        status: TxStatus::Idle,
        statements: HashMap::new(),
        portals: HashMap::new(),
        skipping: false,
    };
    if let Err(End::Fatal(refusal)) = session.run(buffer).await {
        let mut out = Vec::new();
        wire::error(&mut out, Severity::Fatal, &refusal);
        let _ = session.stream.write_all(&out).await;
    }
}

impl Session<'_> {
    async fn run(&mut self, mut buffer: Buffer) -> Result<(), End> {
        let mut out = Vec::new();
        wire::authentication_ok(&mut out);
        parameters().iter().for_each(|(name, value)| wire::parameter_status(&mut out, name, value));
        wire::backend_key_data(&mut out, &self.place.cancel.key());
        wire::ready_for_query(&mut out, self.status);
        self.write(&out).await?;
        let mut intake = Intake::default();
        loop {
            let found = intake.next(buffer.filled(), UNIT).map_err(|it| End::Fatal(it.refusal(UNIT)))?;
            let Some(unit) = found else {
                self.readable().await?;
                if self.stream.read(&mut buffer).await.map_err(|_| End::Left)? == 0 {
                    return Ok(());
                }
                continue;
            };
            let mut out = Vec::new();
            let bytes = buffer.filled().get(..unit.length()).unwrap_or_default().to_vec();
            buffer.consume(bytes.len());
            match unit {
                Unit::Query(_) => self.simple(&bytes, &mut out).await?,
                Unit::Extended(_, end) => self.group(&bytes, end, &mut out).await?,
                Unit::FunctionCall(_) => {
                    self.refuse(&mut out, &no_functions());
                    wire::ready_for_query(&mut out, self.status);
                }
                Unit::Stray(_) => {}
                Unit::Terminate => return Ok(()),
            }
            self.write(&out).await?;
        }
    }

    async fn write(&mut self, out: &[u8]) -> Result<(), End> {
        self.stream.write_all(out).await.map_err(|_| End::Left)
    }

    /// Waits for the client, unless the session is to end.
    async fn readable(&mut self) -> Result<(), End> {
        let (record, stream) = (&self.place.record, &mut self.stream);
        let latest = &self.console.latest;
        poll_fn(|cx| {
            if record.is_killed() || record.is_called() && *latest.load().stopping.borrow() {
                return Poll::Ready(Err(End::Fatal(sent_away())));
            }
            record.answer();
            stream.poll_readable(cx).map_err(|_| End::Left)
        })
        .await
    }

    /// Until a client that waits for the end of a command has gone, or is sent away.
    async fn gone(&mut self) {
        poll_fn(|cx| {
            if self.place.record.is_killed() {
                return Poll::Ready(());
            }
            match self.stream.poll_readable(cx) {
                Poll::Ready(_) if self.stream.is_closed_by_peer() => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    async fn simple(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), End> {
        if self.skipping {
            return Ok(());
        }
        let text = text_of(wire::query_text(message).map_err(malformed)?);
        match text.and_then(command::statements) {
            Err(refusal) => self.refuse(out, &refusal),
            Ok(texts) if texts.is_empty() => out.extend_from_slice(wire::EMPTY_QUERY),
            Ok(texts) => {
                for text in texts {
                    let Err(refusal) = self.statement(text, out).await? else { continue };
                    self.refuse(out, &refusal);
                    break;
                }
            }
        }
        wire::ready_for_query(out, self.status);
        Ok(())
    }

    async fn statement(&mut self, text: &str, out: &mut Vec<u8>) -> Result<Result<(), Refusal>, End> {
        let command = match command::parse(text) {
            Ok(Some(it)) => it,
            Ok(None) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let rows = match self.perform(&command, out).await? {
            Ok(it) => it,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let columns = columns_of(Some(&command));
        if !columns.is_empty() {
            wire::describe_columns(out, columns, |_| false);
            rows.iter().for_each(|it| wire::put_row(out, it, |_| false));
        }
        wire::command_complete(out, command.tag());
        Ok(Ok(()))
    }

    /// Does it; the rows are of SHOW.
    async fn perform(
        &mut self,
        command: &Command,
        out: &mut Vec<u8>,
    ) -> Result<Result<Vec<Vec<Value>>, Refusal>, End> {
        if self.status == TxStatus::Failed
            && !matches!(command, Command::Session(Word::Commit | Word::Rollback))
        {
            return Ok(Err(aborted()));
        }
        let shared = self.console.latest.load();
        let user = &*self.place.record.user;
        let may = shared.rights.admins.contains(user) || command.only_looks() && shared.rights.may_look(user);
        if !may {
            return Ok(Err(not_allowed(command)));
        }
        match command {
            Command::Show(table) => Ok(Ok(tables::rows(*table, self.console))),
            Command::ShowLoad(view) => Ok(view.rows(&shared, shared.rights.admins.contains(user))),
            Command::Session(word) => {
                match word {
                    Word::Begin => self.status = TxStatus::Open,
                    Word::Commit | Word::Rollback => self.status = TxStatus::Idle,
                    Word::Discard | Word::Deallocate => self.statements.clear(),
                    Word::Set | Word::Reset => {}
                }
                Ok(Ok(Vec::new()))
            }
            _ => {
                tracing::info!(user, command = command.tag(), "console");
                let changed = tokio::select! {
                    it = self.console.change(command) => it,
                    () = self.gone() => return Err(End::Left),
                };
                if let Ok(Some(told)) = &changed {
                    wire::information(out, told);
                }
                Ok(changed.map(|_| Vec::new()))
            }
        }
    }

    fn refuse(&mut self, out: &mut Vec<u8>, refusal: &Refusal) {
        wire::error(out, Severity::Error, refusal);
        if self.status == TxStatus::Open {
            self.status = TxStatus::Failed;
        }
    }

    async fn group(&mut self, unit: &[u8], end: UnitEnd, out: &mut Vec<u8>) -> Result<(), End> {
        let mut rest = unit;
        while let Ok(Some(head)) = wire::header(rest) {
            let Some((message, after)) = rest.split_at_checked(head.total) else { break };
            rest = after;
            if self.skipping {
                continue;
            }
            if let Err(refusal) = self.message(FrontendTag(head.tag), message, out).await? {
                self.refuse(out, &refusal);
                self.skipping = true;
            }
        }
        if end == UnitEnd::Sync {
            self.skipping = false;
            if self.status == TxStatus::Idle {
                self.portals.clear();
            }
            wire::ready_for_query(out, self.status);
        }
        Ok(())
    }

    async fn message(
        &mut self,
        tag: FrontendTag,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, End> {
        let done = match tag {
            FrontendTag::PARSE => self.parse(message, out),
            FrontendTag::BIND => self.bind(message, out),
            FrontendTag::DESCRIBE => self.describe(message, out),
            FrontendTag::EXECUTE => return self.execute(message, out).await,
            FrontendTag::CLOSE => {
                match wire::target(message).map_err(malformed)? {
                    Target::Statement(name) => drop(self.statements.remove(name)),
                    Target::Portal(name) => drop(self.portals.remove(name)),
                }
                out.extend_from_slice(wire::CLOSE_COMPLETE);
                Ok(Ok(()))
            }
            _ => Ok(Ok(())),
        };
        done.map_err(malformed)
    }

    fn parse(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<Result<(), Refusal>, wire::BodyError> {
        let parse = wire::parse(message)?;
        let prepared = text_of(parse.text).and_then(command::parse);
        Ok(prepared.and_then(|it| {
            if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
                let name = String::from_utf8_lossy(parse.name);
                let message = format!("prepared statement \"{name}\" already exists");
                return Err(Refusal::new(Reason::Protocol, SqlState::DUPLICATE_PREPARED_STATEMENT, message));
            }
            check_room(self.statements.len())?;
            self.statements.insert(parse.name.to_vec(), it);
            out.extend_from_slice(wire::PARSE_COMPLETE);
            Ok(())
        }))
    }

    fn bind(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<Result<(), Refusal>, wire::BodyError> {
        let bind = Bind::read(message)?;
        let Some(command) = self.statements.get(bind.statement()).cloned() else {
            return Ok(Err(no_such(
                SqlState::INVALID_SQL_STATEMENT_NAME,
                "prepared statement",
                bind.statement(),
            )));
        };
        if !bind.values().is_empty() {
            let message = format!("the command has no parameters, and {} were bound", bind.values().len());
            return Ok(Err(Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, message)));
        }
        let columns = columns_of(command.as_ref()).len();
        let binary = (0..columns).map(|it| bind.result_formats().is_binary(it)).collect();
        Ok(check_room(self.portals.len()).map(|()| {
            self.portals.insert(bind.portal().to_vec(), Portal { command, binary, left: None });
            out.extend_from_slice(wire::BIND_COMPLETE);
        }))
    }

    fn describe(
        &mut self,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, wire::BodyError> {
        match wire::target(message)? {
            Target::Statement(name) => {
                let Some(prepared) = self.statements.get(name) else {
                    return Ok(Err(no_such(
                        SqlState::INVALID_SQL_STATEMENT_NAME,
                        "prepared statement",
                        name,
                    )));
                };
                wire::parameter_description(out, &[]);
                put_description(out, columns_of(prepared.as_ref()), |_| false);
            }
            Target::Portal(name) => {
                let Some(portal) = self.portals.get(name) else {
                    return Ok(Err(no_such(SqlState::INVALID_CURSOR_NAME, "portal", name)));
                };
                put_description(out, columns_of(portal.command.as_ref()), |it| portal.is_binary(it));
            }
        }
        Ok(Ok(()))
    }

    async fn execute(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<Result<(), Refusal>, End> {
        let execute = wire::execute(message).map_err(malformed)?;
        let Some(mut portal) = self.portals.remove(execute.portal) else {
            return Ok(Err(no_such(SqlState::INVALID_CURSOR_NAME, "portal", execute.portal)));
        };
        let Some(command) = portal.command.clone() else {
            out.extend_from_slice(wire::EMPTY_QUERY);
            return Ok(Ok(()));
        };
        let mut left = match portal.left.take() {
            Some(it) => it,
            None => match self.perform(&command, out).await? {
                Ok(rows) => rows.into_iter(),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let most = usize::try_from(execute.rows_max).ok().filter(|it| *it > 0).unwrap_or(usize::MAX);
        for row in left.by_ref().take(most) {
            wire::put_row(out, &row, |it| portal.is_binary(it));
        }
        if left.len() > 0 {
            out.extend_from_slice(wire::PORTAL_SUSPENDED);
            portal.left = Some(left);
            self.portals.insert(execute.portal.to_vec(), portal);
        } else {
            wire::command_complete(out, command.tag());
        }
        Ok(Ok(()))
    }
}

fn columns_of(command: Option<&Command>) -> &'static [Column] {
    match command {
        Some(Command::Show(table)) => tables::columns(*table),
        Some(Command::ShowLoad(view)) => view.columns(),
        _ => &[],
    }
}

fn put_description(out: &mut Vec<u8>, columns: &[Column], is_binary: impl Fn(usize) -> bool) {
    if columns.is_empty() {
        out.extend_from_slice(wire::NO_DATA);
    } else {
        wire::describe_columns(out, columns, is_binary);
    }
}

fn malformed(error: wire::BodyError) -> End {
    End::Fatal(Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, error.to_string()))
}

fn text_of(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| {
        let message = "invalid byte sequence for encoding \"UTF8\"";
        Refusal::new(Reason::Protocol, SqlState("22021"), message)
    })
}

fn check_room(names: usize) -> Result<(), Refusal> {
    if names < NAMES_MAX {
        return Ok(());
    }
    let message = format!("a client of the console may have {NAMES_MAX} prepared statements or portals");
    Err(Refusal::new(Reason::Limit, SqlState::PROGRAM_LIMIT_EXCEEDED, message).hint("close some"))
}

fn no_such(state: SqlState, what: &str, name: &[u8]) -> Refusal {
    let message = format!("{what} \"{}\" does not exist", String::from_utf8_lossy(name));
    Refusal::new(Reason::Protocol, state, message)
}

fn no_functions() -> Refusal {
    Refusal::unsupported(Reason::Unsupported, "the console has no functions", "SHOW HELP lists what it knows")
}

fn aborted() -> Refusal {
    Refusal::new(
        Reason::Unsupported,
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

fn not_allowed(command: &Command) -> Refusal {
    Refusal::new(Reason::Auth, SqlState("42501"), format!("permission denied for {}", command.tag()))
        .hint("name the user in admin_users in the configuration of keyway")
}

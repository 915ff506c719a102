//! What the console is told to do: texts to commands. Pure.

use std::fmt;
use std::time::Duration;

use super::hotspots::View;
use crate::base::{Reason, Refusal, SqlState};
use crate::hotspot::Metric;
use crate::sql::{Lexer, Token, TokenKind};

/// Of a heat map.
const LAST_DEFAULT: Duration = Duration::from_secs(3_600);

/// A database, or all of them.
pub type Database = Option<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Show(Table),
    /// SHOW of hot shards and keys.
    ShowLoad(View),
    Reload,
    Pause(Database),
    Resume(Database),
    Reconnect(Database),
    Disable(String),
    Enable(String),
    Kill(Database),
    KillClient(u64),
    WaitClose(Database),
    Shutdown(Shutdown),
    /// What drivers say of a session. It changes nothing, because a session here has nothing.
    Session(Word),
}

/// What SHOW shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Help,
    Pools,
    Clients,
    Servers,
    Databases,
    Stats,
    StatsTotals,
    StatsAverages,
    Lists,
    Config,
    Users,
    Version,
    Pins,
    Transactions,
    Shards,
    Replicas,
    Protection,
    Prepared,
    State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// As SIGTERM.
    Timeout,
    WaitForServers,
    WaitForClients,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Begin,
    Commit,
    Rollback,
    Set,
    Reset,
    Discard,
    Deallocate,
}

impl Table {
    pub const ALL: [(&'static str, Table); 20] = [
        ("HELP", Table::Help),
        ("POOLS", Table::Pools),
        ("CLIENTS", Table::Clients),
        ("SERVERS", Table::Servers),
        ("DATABASES", Table::Databases),
        ("STATS", Table::Stats),
        ("STATS_TOTALS", Table::StatsTotals),
        ("STATS_AVERAGES", Table::StatsAverages),
        ("TOTALS", Table::StatsTotals),
        ("LISTS", Table::Lists),
        ("CONFIG", Table::Config),
        ("USERS", Table::Users),
        ("VERSION", Table::Version),
        ("PINS", Table::Pins),
        ("TRANSACTIONS", Table::Transactions),
        ("SHARDS", Table::Shards),
        ("REPLICAS", Table::Replicas),
        ("PROTECTION", Table::Protection),
        ("PREPARED", Table::Prepared),
        ("STATE", Table::State),
    ];
}

impl Command {
    /// Whether it changes nothing but the console's own session: `stats_users` may say it.
    pub fn only_looks(&self) -> bool {
        matches!(self, Command::Show(_) | Command::ShowLoad(_) | Command::Session(_))
    }

    /// The tag of CommandComplete; PgBouncer's words.
    pub fn tag(&self) -> &'static str {
        match self {
            Command::Show(_) | Command::ShowLoad(_) => "SHOW",
            Command::Reload => "RELOAD",
            Command::Pause(_) => "PAUSE",
            Command::Resume(_) => "RESUME",
            Command::Reconnect(_) => "RECONNECT",
            Command::Disable(_) => "DISABLE",
            Command::Enable(_) => "ENABLE",
            Command::Kill(_) => "KILL",
            Command::KillClient(_) => "KILL_CLIENT",
            Command::WaitClose(_) => "WAIT_CLOSE",
            Command::Shutdown(_) => "SHUTDOWN",
            Command::Session(Word::Begin) => "BEGIN",
            Command::Session(Word::Commit) => "COMMIT",
            Command::Session(Word::Rollback) => "ROLLBACK",
            Command::Session(Word::Set) => "SET",
            Command::Session(Word::Reset) => "RESET",
            Command::Session(Word::Discard) => "DISCARD ALL",
            Command::Session(Word::Deallocate) => "DEALLOCATE ALL",
        }
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shutdown::Timeout => "SHUTDOWN",
            Shutdown::WaitForServers => "SHUTDOWN WAIT_FOR_SERVERS",
            Shutdown::WaitForClients => "SHUTDOWN WAIT_FOR_CLIENTS",
        })
    }
}

/// The texts of a Query, apart by semicolons; those without a word are left out.
pub fn statements(text: &str) -> Result<Vec<&str>, Refusal> {
    let (mut found, mut start, mut empty) = (Vec::new(), 0, true);
    let mut lexer = Lexer::new(text.as_bytes());
    while let Some(token) = lexer.token().map_err(|it| unknown(text).at(it.at as u32 + 1))? {
        if &text[token.start..token.end] != ";" {
            empty = false;
            continue;
        }
        if !std::mem::replace(&mut empty, true) {
            found.push(text[start..token.start].trim());
        }
        start = token.end;
    }
    if !empty {
        found.push(text[start..].trim());
    }
    Ok(found)
}

/// One statement; `None` where there is no word in it.
pub fn parse(text: &str) -> Result<Option<Command>, Refusal> {
    let mut words = Words { text, lexer: Lexer::new(text.as_bytes()) };
    let Some(first) = words.word()? else { return Ok(None) };
    let command = match first.as_str() {
        "SHOW" => words.table()?,
        "RELOAD" => Command::Reload,
        "PAUSE" => Command::Pause(words.name()?),
        "RESUME" => Command::Resume(words.name()?),
        "RECONNECT" => Command::Reconnect(words.name()?),
        "DISABLE" => Command::Disable(words.required_name()?),
        "ENABLE" => Command::Enable(words.required_name()?),
        "KILL" => Command::Kill(words.name()?),
        "KILL_CLIENT" => Command::KillClient(words.number()?),
        "WAIT_CLOSE" => Command::WaitClose(words.name()?),
        "SHUTDOWN" => Command::Shutdown(words.shutdown()?),
        _ => match session(&first) {
            // Whatever it says.
            Some(word) => return Ok(Some(Command::Session(word))),
            None => return Err(unknown(text)),
        },
    };
    match words.token()? {
        None => Ok(Some(command)),
        Some(token) if &text[token.start..token.end] == ";" => Ok(Some(command)),
        Some(token) => Err(unknown(text).at(token.start as u32 + 1)),
    }
}

fn session(word: &str) -> Option<Word> {
    Some(match word {
        "BEGIN" | "START" => Word::Begin,
        "COMMIT" | "END" => Word::Commit,
        "ROLLBACK" | "ABORT" => Word::Rollback,
        "SET" => Word::Set,
        "RESET" => Word::Reset,
        "DISCARD" => Word::Discard,
        "DEALLOCATE" => Word::Deallocate,
        _ => return None,
    })
}

fn unknown(text: &str) -> Refusal {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.trim().chars().take(SHOWN_MAX).collect();
    let message = format!("the console does not know \"{shown}\"");
    Refusal::new(Reason::Parse, SqlState::SYNTAX_ERROR, message).hint("SHOW HELP lists what it knows")
}

struct Words<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
}

impl Words<'_> {
    fn token(&mut self) -> Result<Option<Token>, Refusal> {
        self.lexer.token().map_err(|it| unknown(self.text).at(it.at as u32 + 1))
    }

    fn text_of(&self, token: Token) -> &str {
        &self.text[token.start..token.end]
    }

    /// In upper case.
    fn word(&mut self) -> Result<Option<String>, Refusal> {
        match self.token()? {
            None => Ok(None),
            Some(token) if token.kind == TokenKind::Word => Ok(Some(self.text_of(token).to_uppercase())),
            Some(token) => Err(unknown(self.text).at(token.start as u32 + 1)),
        }
    }

    fn table(&mut self) -> Result<Command, Refusal> {
        let Some(word) = self.word()? else { return Err(unknown(self.text)) };
        if let Some(view) = self.view(&word)? {
            return Ok(Command::ShowLoad(view));
        }
        let found = Table::ALL.iter().find(|it| it.0 == word).map(|it| it.1);
        found.map(Command::Show).ok_or_else(|| unknown(self.text))
    }

    /// HEATMAP takes a metric behind its map, and `LAST '1h'`, in either order.
    fn view(&mut self, word: &str) -> Result<Option<View>, Refusal> {
        Ok(Some(match word {
            "HOTSPOTS" => View::Hotspots,
            "KEYS" => View::Keys(self.name()?),
            "SKEW" => View::Skew,
            "ADVICE" => View::Advice,
            "HEATMAP" => {
                let map = self.name()?.ok_or_else(|| {
                    Refusal::new(Reason::Parse, SqlState::SYNTAX_ERROR, "a map is required")
                        .hint("name one of SHOW SKEW: SHOW HEATMAP by_user LAST '1h'")
                })?;
                let (mut metric, mut last) = (Metric::Calls, LAST_DEFAULT);
                while let Some(token) = self.token()? {
                    let text = self.text_of(token).to_lowercase();
                    match (text.as_str(), Metric::of_label(&text)) {
                        (";", _) => break,
                        ("last", _) => last = self.duration()?,
                        (_, Some(it)) => metric = it,
                        _ => return Err(unknown(self.text).at(token.start as u32 + 1)),
                    }
                }
                View::HeatMap { map, metric, last }
            }
            _ => return Ok(None),
        }))
    }

    fn duration(&mut self) -> Result<Duration, Refusal> {
        let token = self.token()?.filter(|it| matches!(it.kind, TokenKind::Literal(_)));
        let text = token.map(|it| self.text_of(it).trim_matches('\'').to_owned());
        text.and_then(|it| humantime::parse_duration(&it).ok()).filter(|it| !it.is_zero()).ok_or_else(|| {
            Refusal::new(Reason::Parse, SqlState::SYNTAX_ERROR, "a duration is required behind LAST")
                .hint("write it as LAST '15m' or LAST '2d'")
        })
    }

    /// Folded as SQL's names are, or as it stands between quotes.
    fn name(&mut self) -> Result<Database, Refusal> {
        let Some(token) = self.token()? else { return Ok(None) };
        let text = self.text_of(token);
        match token.kind {
            TokenKind::Word => Ok(Some(text.to_lowercase())),
            TokenKind::QuotedName => Ok(Some(text[1..text.len() - 1].replace("\"\"", "\""))),
            TokenKind::Punctuation if text == ";" => Ok(None),
            _ => Err(unknown(self.text).at(token.start as u32 + 1)),
        }
    }

    fn required_name(&mut self) -> Result<String, Refusal> {
        self.name()?.ok_or_else(|| {
            Refusal::new(Reason::Parse, SqlState::SYNTAX_ERROR, "a database is required")
                .hint("name one of SHOW DATABASES")
        })
    }

    fn number(&mut self) -> Result<u64, Refusal> {
        let token = self.token()?;
        let is_number = |it: &Token| matches!(it.kind, TokenKind::Literal(_));
        let number = token.filter(is_number).and_then(|it| {
            let text = self.text_of(it);
            text.trim_matches('\'').parse().ok()
        });
        number.ok_or_else(|| {
            Refusal::new(Reason::Parse, SqlState::SYNTAX_ERROR, "the id of a client is required")
                .hint("SHOW CLIENTS has it in column id")
        })
    }

    fn shutdown(&mut self) -> Result<Shutdown, Refusal> {
        match self.word()?.as_deref() {
            None => Ok(Shutdown::Timeout),
            Some("WAIT_FOR_SERVERS") => Ok(Shutdown::WaitForServers),
            Some("WAIT_FOR_CLIENTS") => Ok(Shutdown::WaitForClients),
            Some(_) => Err(unknown(self.text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Command) {
        assert_eq!(parse(text).unwrap(), Some(expect), "{text}");
    }

    fn refused(text: &str, message: &str) {
        let refusal = parse(text).unwrap_err();
        assert_eq!(refusal.state(), SqlState::SYNTAX_ERROR, "{text}");
        assert!(refusal.message().contains(message), "{text}: {refusal:?}");
        assert!(refusal.hint_text().is_some(), "{text}");
    }

    #[test]
    fn commands_are_read_as_sql_is() {
        check("show pools", Command::Show(Table::Pools));
        check("  SHOW /* all */ Stats_Totals ; -- now", Command::Show(Table::StatsTotals));
        check("PAUSE", Command::Pause(None));
        check("pause Shop;", Command::Pause(Some("shop".to_owned())));
        check("RESUME \"Shop \"\"1\"\"\"", Command::Resume(Some("Shop \"1\"".to_owned())));
        check("RECONNECT;", Command::Reconnect(None));
        check("KILL shop", Command::Kill(Some("shop".to_owned())));
        check("SHOW KEYS", Command::ShowLoad(View::Keys(None)));
        check("show keys By_User;", Command::ShowLoad(View::Keys(Some("by_user".to_owned()))));
        let heat_map = |metric, seconds| {
            let (map, last) = ("by_user".to_owned(), Duration::from_secs(seconds));
            Command::ShowLoad(View::HeatMap { map, metric, last })
        };
        check("SHOW HEATMAP by_user", heat_map(Metric::Calls, 3_600));
        check("SHOW HEATMAP by_user LAST '2h' writes;", heat_map(Metric::Writes, 7_200));
        check("SHOW HEATMAP by_user time LAST '15m'", heat_map(Metric::Time, 900));
        check("KILL_CLIENT 17", Command::KillClient(17));
        check("SHUTDOWN", Command::Shutdown(Shutdown::Timeout));
        check("shutdown wait_for_clients", Command::Shutdown(Shutdown::WaitForClients));
        check("SET extra_float_digits = 3", Command::Session(Word::Set));
        check("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", Command::Session(Word::Begin));
        assert_eq!(parse(" -- nothing").unwrap(), None);
        assert_eq!(parse("").unwrap(), None);
    }

    #[test]
    fn what_is_not_known_is_refused_with_a_hint() {
        refused("SELECT 1", "does not know \"SELECT 1\"");
        refused("SHOW", "does not know");
        refused("SHOW KEY", "does not know \"SHOW KEY\"");
        refused("SHOW HEATMAP", "a map is required");
        refused("SHOW HEATMAP a LAST", "a duration is required");
        refused("SHOW HEATMAP a LAST 'x'", "a duration is required");
        refused("SHOW HEATMAP a b", "does not know");
        refused("RELOAD now", "does not know");
        refused("PAUSE a b", "does not know");
        refused("DISABLE", "a database is required");
        refused("KILL_CLIENT", "the id of a client");
        refused("KILL_CLIENT shop", "the id of a client");
        refused("SHUTDOWN now", "does not know");
        refused("PAUSE 'x", "does not know");
        refused("(", "does not know");
    }

    #[test]
    fn statements_are_apart_by_semicolons_that_are_not_quoted() {
        let found = statements(";SHOW POOLS; PAUSE \"a;b\" ;; -- x;y\nSHOW LISTS").unwrap();
        assert_eq!(found, ["SHOW POOLS", "PAUSE \"a;b\"", "-- x;y\nSHOW LISTS"]);
        assert!(statements(" ; -- nothing").unwrap().is_empty());
        assert!(statements("SHOW 'x").is_err());
    }

    #[test]
    fn users_of_statistics_may_look() {
        let looks = |text: &str| parse(text).unwrap().unwrap().only_looks();
        assert!(looks("SHOW CLIENTS") && looks("BEGIN"));
        assert!(!looks("RELOAD") && !looks("PAUSE") && !looks("KILL_CLIENT 1") && !looks("SHUTDOWN"));
    }
}

//! Who listens to which channels of one database, and what the connections that listen for all of them still
//! have to be told. A client's LISTEN counts from its commit on, as its settings do (`Transaction`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::settings::quote_name;

/// Names of channels.
pub type ChannelSet = BTreeSet<Arc<str>>;

/// What LISTEN and UNLISTEN ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelChange {
    Listen(Arc<str>),
    Unlisten(Arc<str>),
    UnlistenAll,
}

impl ChannelChange {
    pub fn apply(&self, channels: &mut ChannelSet) {
        match self {
            ChannelChange::Listen(name) => {
                channels.insert(name.clone());
            }
            ChannelChange::Unlisten(name) => {
                channels.remove(name);
            }
            ChannelChange::UnlistenAll => channels.clear(),
        }
    }
}

/// The channels of all clients, over lines that may come and go: one to each shard.
///
/// ```text
///             first subscriber          begin()            answered()
///   (none) ─────────────────────▶ wanted ─────▶ asked for ───────────▶ heard
///      ▲                            ▲ ▲                                  │
///      │ last subscriber            │ └──────────── lost() ──────────────┤
///      ├────────────────────────────┘                                    │ last subscriber
///      └── answered() ◀── given up ◀── begin() ── unwanted ◀─────────────┘
/// ```
/// That is of each line. One request is under way on it at a time. A ticket is good there when a request that began
/// after it was taken has been answered: by then every channel that was wanted at that time is heard, and whatever had
/// been committed by then has arrived, because a server sends what it has for a listener before it is ready again
/// (`ProcessClientReadInterrupt` and `PostgresMain` in postgres.c).
#[derive(Debug)]
pub struct Switchboard<S> {
    channels: HashMap<Arc<str>, Vec<S>>,
    lines: BTreeMap<Arc<str>, Line>,
    taken: Ticket,
}

/// In the order in which they were taken.
pub type Ticket = u64;

#[derive(Debug, Default)]
struct Line {
    /// What it listens to.
    told: ChannelSet,
    asked: Option<Asked>,
    /// Somebody waits for this ticket.
    due: Ticket,
    good: Ticket,
    /// Subscribers have missed something on it, and are told so when this ticket is good.
    missed: Option<Ticket>,
}

#[derive(Debug)]
struct Asked {
    told: ChannelSet,
    ticket: Ticket,
}

impl<S> Default for Switchboard<S> {
    fn default() -> Switchboard<S> {
        Switchboard { channels: HashMap::new(), lines: BTreeMap::new(), taken: 0 }
    }
}

impl<S: Clone> Switchboard<S> {
    /// One that is there stays as it is.
    pub fn open(&mut self, line: &Arc<str>) {
        let due = self.taken;
        self.lines.entry(line.clone()).or_insert_with(|| Line { due, ..Line::default() });
    }

    /// Of a line that is not there nothing is asked, and nothing is good.
    pub fn close(&mut self, line: &str) {
        self.lines.remove(line);
    }

    /// Nobody subscribes twice: the caller knows what it is subscribed to.
    pub fn subscribe(&mut self, channel: &Arc<str>, subscriber: S) {
        self.channels.entry(channel.clone()).or_default().push(subscriber);
    }

    /// `is` tells the one that leaves.
    pub fn unsubscribe(&mut self, channel: &str, is: impl Fn(&S) -> bool) {
        if let Some(subscribers) = self.channels.get_mut(channel) {
            subscribers.retain(|it| !is(it));
            if subscribers.is_empty() {
                self.channels.remove(channel);
            }
        }
    }

    pub fn subscribers(&self, channel: &str) -> &[S] {
        self.channels.get(channel).map_or(&[], Vec::as_slice)
    }

    /// The channel's name as all share it.
    pub fn name(&self, channel: &str) -> Option<&Arc<str>> {
        self.channels.get_key_value(channel).map(|it| it.0)
    }

    /// Each as often as it is subscribed.
    pub fn all(&self) -> impl Iterator<Item = &S> {
        self.channels.values().flatten()
    }

    pub fn len(&self) -> usize {
        self.channels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// To be good on every line.
    pub fn take_ticket(&mut self) -> Ticket {
        self.taken += 1;
        self.lines.values_mut().for_each(|it| it.due = self.taken);
        self.taken
    }

    /// To be good on one line: others are not asked for it.
    pub fn take_ticket_of(&mut self, line: &str) -> Ticket {
        self.taken += 1;
        if let Some(line) = self.lines.get_mut(line) {
            line.due = self.taken;
        }
        self.taken
    }

    /// The text to send next on a line, if it is to be told or asked anything. An empty one only brings tickets to
    /// be good.
    pub fn begin(&mut self, line: &str) -> Option<String> {
        let line = self.lines.get_mut(line).filter(|it| it.asked.is_none())?;
        let wanted: ChannelSet = self.channels.keys().cloned().collect();
        if wanted == line.told && line.due <= line.good {
            return None;
        }
        let of = |verb: &str, name: &str| format!("{verb} {}", quote_name(name));
        let listen = wanted.difference(&line.told).map(|it| of("LISTEN", it));
        let unlisten = line.told.difference(&wanted).map(|it| of("UNLISTEN", it));
        let text = listen.chain(unlisten).collect::<Vec<_>>().join(";");
        line.asked = Some(Asked { told: wanted, ticket: self.taken });
        Some(text)
    }

    /// The line has done what it was asked. Gives its last ticket that is good, and whether those who missed something
    /// on it are to be told now.
    pub fn answered(&mut self, line: &str) -> (Ticket, bool) {
        let Some(line) = self.lines.get_mut(line) else { return (0, false) };
        if let Some(asked) = line.asked.take() {
            line.told = asked.told;
            line.good = asked.ticket;
        }
        let tells = line.missed.take_if(|it| *it <= line.good).is_some();
        (line.good, tells)
    }

    /// The connection is gone; the next one hears nothing yet.
    pub fn lost(&mut self, line: &str) {
        if let Some(line) = self.lines.get_mut(line) {
            line.asked = None;
            line.told.clear();
        }
    }

    /// Somebody has missed something on a line. What is heard behind a ticket that is taken now, is heard.
    pub fn note_missed(&mut self, line: &str) {
        if let Some(line) = self.lines.get_mut(line) {
            line.missed = Some(self.taken);
            line.due = self.taken;
        }
    }

    /// Whether a ticket is good on a line.
    pub fn is_good(&self, line: &str, ticket: Ticket) -> bool {
        self.lines.get(line).is_some_and(|it| it.good >= ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    fn board(lines: &[&str]) -> Switchboard<i32> {
        let mut it = Switchboard::default();
        lines.iter().for_each(|line| it.open(&name(line)));
        it
    }

    #[test]
    fn changes_apply_in_their_order() {
        let mut channels = ChannelSet::new();
        for change in [
            ChannelChange::Listen(name("a")),
            ChannelChange::Listen(name("b")),
            ChannelChange::Listen(name("a")),
            ChannelChange::Unlisten(name("b")),
            ChannelChange::Unlisten(name("c")),
        ] {
            change.apply(&mut channels);
        }
        assert_eq!(channels.iter().map(|it| &**it).collect::<Vec<_>>(), ["a"]);
        ChannelChange::UnlistenAll.apply(&mut channels);
        assert!(channels.is_empty());
    }

    #[test]
    fn a_channel_is_asked_for_once_and_given_up_by_the_last() {
        let mut it = board(&["s1"]);
        assert_eq!(it.begin("s1"), None, "nothing wanted, nothing said");
        it.subscribe(&name("a"), 1);
        it.subscribe(&name("a"), 2);
        it.subscribe(&name("b \"c\""), 1);
        let text = it.begin("s1").unwrap();
        assert_eq!(text, "LISTEN \"a\";LISTEN \"b \"\"c\"\"\"");
        assert_eq!(it.begin("s1"), None, "one request at a time");
        it.answered("s1");
        assert_eq!(it.begin("s1"), None);
        assert_eq!((it.subscribers("a"), it.subscribers("none"), it.len()), (&[1, 2][..], &[][..], 2));
        it.unsubscribe("a", |it| *it == 1);
        assert_eq!(it.begin("s1"), None, "somebody still listens");
        it.unsubscribe("a", |it| *it == 2);
        assert_eq!(it.begin("s1").unwrap(), "UNLISTEN \"a\"");
        it.answered("s1");
        it.unsubscribe("b \"c\"", |it| *it == 1);
        assert!(it.is_empty());
    }

    #[test]
    fn a_ticket_is_good_with_a_request_that_began_behind_it() {
        let mut it = board(&["s1"]);
        it.subscribe(&name("a"), 1);
        let first = it.take_ticket();
        it.begin("s1").unwrap();
        it.subscribe(&name("b"), 1);
        let second = it.take_ticket();
        assert_eq!(it.answered("s1").0, first);
        assert_eq!(it.begin("s1").unwrap(), "LISTEN \"b\"");
        assert_eq!(it.answered("s1").0, second);
        // Nothing to tell: the answer alone is of interest.
        let third = it.take_ticket();
        assert_eq!(it.begin("s1").unwrap(), "");
        assert_eq!(it.answered("s1").0, third);
        assert_eq!(it.begin("s1"), None);
    }

    #[test]
    fn a_new_connection_is_told_everything_and_tickets_wait_for_it() {
        let mut it = board(&["s1"]);
        it.subscribe(&name("a"), 1);
        it.begin("s1").unwrap();
        it.answered("s1");
        it.subscribe(&name("b"), 1);
        let ticket = it.take_ticket();
        it.begin("s1").unwrap();
        it.lost("s1");
        assert!(it.answered("s1").0 < ticket, "the answer of a lost connection counts for nothing");
        assert_eq!(it.begin("s1").unwrap(), "LISTEN \"a\";LISTEN \"b\"");
        assert_eq!(it.answered("s1").0, ticket);
    }

    #[test]
    fn what_comes_and_goes_between_two_requests_is_never_told() {
        let mut it = board(&["s1"]);
        it.subscribe(&name("a"), 1);
        it.begin("s1").unwrap();
        it.subscribe(&name("b"), 1);
        it.unsubscribe("b", |_| true);
        it.unsubscribe("a", |_| true);
        it.subscribe(&name("a"), 2);
        it.answered("s1");
        assert_eq!(it.begin("s1"), None);
        assert_eq!(it.subscribers("a"), [2]);
    }
    #[test]
    fn each_line_is_asked_for_itself() {
        let mut it = board(&["s1", "s2"]);
        it.subscribe(&name("a"), 1);
        let ticket = it.take_ticket();
        assert_eq!(it.begin("s1").unwrap(), "LISTEN \"a\"");
        assert_eq!(it.answered("s1"), (ticket, false));
        assert!(it.is_good("s1", ticket) && !it.is_good("s2", ticket));
        assert_eq!(it.begin("s2").unwrap(), "LISTEN \"a\"");
        assert_eq!(it.answered("s2").0, ticket);
        it.lost("s2");
        assert_eq!((it.begin("s1"), it.begin("s2").as_deref()), (None, Some("LISTEN \"a\"")));
        it.answered("s2");
        let ticket = it.take_ticket_of("s2");
        assert_eq!((it.begin("s1"), it.begin("s2").as_deref()), (None, Some("")));
        assert_eq!(it.answered("s2").0, ticket);
        // A new one hears what there is, one that is gone nothing.
        it.open(&name("s3"));
        it.close("s2");
        assert_eq!(it.begin("s3").unwrap(), "LISTEN \"a\"");
        assert_eq!((it.begin("s2"), it.answered("s2")), (None, (0, false)));
        assert!(!it.is_good("s2", 0));
    }

    #[test]
    fn what_was_missed_is_told_when_all_is_heard_again() {
        let mut it = board(&["s1", "s2"]);
        it.subscribe(&name("a"), 1);
        it.take_ticket();
        it.begin("s2").unwrap();
        it.subscribe(&name("b"), 2);
        it.take_ticket();
        it.note_missed("s2");
        assert_eq!(it.answered("s2"), (1, false), "channel b is not heard yet");
        it.begin("s2").unwrap();
        assert_eq!(it.answered("s2"), (2, true));
        it.take_ticket();
        it.begin("s2").unwrap();
        assert_eq!(it.answered("s2"), (3, false), "it is told once");
    }
}

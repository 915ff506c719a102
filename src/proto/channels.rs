//! Who listens to which channels of one database, and what the connection that listens for all of them still
//! has to be told. A client's LISTEN counts from its commit on, as its settings do (`Transaction`).

use std::collections::{BTreeSet, HashMap};
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

/// The channels of all clients, over one connection that may come and go.
///
/// ```text
///             first subscriber          begin()            answered()
///   (none) ─────────────────────▶ wanted ─────▶ asked for ───────────▶ heard
///      ▲                            ▲ ▲                                  │
///      │ last subscriber            │ └──────────── lost() ──────────────┤
///      ├────────────────────────────┘                                    │ last subscriber
///      └── answered() ◀── given up ◀── begin() ── unwanted ◀─────────────┘
/// ```
/// One request is under way at a time. A ticket is good when a request that began after it was taken has been
/// answered: by then every channel that was wanted at that time is heard, and whatever had been committed by
/// then has arrived, because a server sends what it has for a listener before it is ready again
/// (`ProcessClientReadInterrupt` and `PostgresMain` in postgres.c).
#[derive(Debug)]
pub struct Switchboard<S> {
    channels: HashMap<Arc<str>, Vec<S>>,
    /// What the connection listens to.
    told: ChannelSet,
    asked: Option<Asked>,
    taken: Ticket,
    good: Ticket,
}

/// In the order in which they were taken.
pub type Ticket = u64;

#[derive(Debug)]
struct Asked {
    told: ChannelSet,
    ticket: Ticket,
}

impl<S> Default for Switchboard<S> {
    fn default() -> Switchboard<S> {
        let (channels, told) = (HashMap::new(), ChannelSet::new());
        Switchboard { channels, told, asked: None, taken: 0, good: 0 }
    }
}

impl<S: Clone> Switchboard<S> {
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

    pub fn take_ticket(&mut self) -> Ticket {
        self.taken += 1;
        self.taken
    }

    /// The text to send next, if the connection is to be told or asked anything. An empty one only brings
    /// tickets to be good.
    pub fn begin(&mut self) -> Option<String> {
        if self.asked.is_some() {
            return None;
        }
        let wanted: ChannelSet = self.channels.keys().cloned().collect();
        if wanted == self.told && self.taken == self.good {
            return None;
        }
        let of = |verb: &str, name: &str| format!("{verb} {}", quote_name(name));
        let listen = wanted.difference(&self.told).map(|it| of("LISTEN", it));
        let unlisten = self.told.difference(&wanted).map(|it| of("UNLISTEN", it));
        let text = listen.chain(unlisten).collect::<Vec<_>>().join(";");
        self.asked = Some(Asked { told: wanted, ticket: self.taken });
        Some(text)
    }

    /// The connection has done what it was asked. Gives the last ticket that is good.
    pub fn answered(&mut self) -> Ticket {
        if let Some(asked) = self.asked.take() {
            self.told = asked.told;
            self.good = asked.ticket;
        }
        self.good
    }

    /// The connection is gone; the next one hears nothing yet.
    pub fn lost(&mut self) {
        self.asked = None;
        self.told.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<str> {
        text.into()
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
        let mut it = Switchboard::default();
        assert_eq!(it.begin(), None, "nothing wanted, nothing said");
        it.subscribe(&name("a"), 1);
        it.subscribe(&name("a"), 2);
        it.subscribe(&name("b \"c\""), 1);
        let text = it.begin().unwrap();
        assert_eq!(text, "LISTEN \"a\";LISTEN \"b \"\"c\"\"\"");
        assert_eq!(it.begin(), None, "one request at a time");
        it.answered();
        assert_eq!(it.begin(), None);
        assert_eq!((it.subscribers("a"), it.subscribers("none"), it.len()), (&[1, 2][..], &[][..], 2));
        it.unsubscribe("a", |it| *it == 1);
        assert_eq!(it.begin(), None, "somebody still listens");
        it.unsubscribe("a", |it| *it == 2);
        assert_eq!(it.begin().unwrap(), "UNLISTEN \"a\"");
        it.answered();
        it.unsubscribe("b \"c\"", |it| *it == 1);
        assert!(it.is_empty());
    }

    #[test]
    fn a_ticket_is_good_with_a_request_that_began_behind_it() {
        let mut it = Switchboard::default();
        it.subscribe(&name("a"), 1);
        let first = it.take_ticket();
        it.begin().unwrap();
        it.subscribe(&name("b"), 1);
        let second = it.take_ticket();
        assert_eq!(it.answered(), first);
        assert_eq!(it.begin().unwrap(), "LISTEN \"b\"");
        assert_eq!(it.answered(), second);
        // Nothing to tell: the answer alone is of interest.
        let third = it.take_ticket();
        assert_eq!(it.begin().unwrap(), "");
        assert_eq!(it.answered(), third);
        assert_eq!(it.begin(), None);
    }

    #[test]
    fn a_new_connection_is_told_everything_and_tickets_wait_for_it() {
        let mut it = Switchboard::default();
        it.subscribe(&name("a"), 1);
        it.begin().unwrap();
        it.answered();
        it.subscribe(&name("b"), 1);
        let ticket = it.take_ticket();
        it.begin().unwrap();
        it.lost();
        assert!(it.answered() < ticket, "the answer of a lost connection counts for nothing");
        assert_eq!(it.begin().unwrap(), "LISTEN \"a\";LISTEN \"b\"");
        assert_eq!(it.answered(), ticket);
    }

    #[test]
    fn what_comes_and_goes_between_two_requests_is_never_told() {
        let mut it = Switchboard::default();
        it.subscribe(&name("a"), 1);
        it.begin().unwrap();
        it.subscribe(&name("b"), 1);
        it.unsubscribe("b", |_| true);
        it.unsubscribe("a", |_| true);
        it.subscribe(&name("a"), 2);
        it.answered();
        assert_eq!(it.begin(), None);
        assert_eq!(it.subscribers("a"), [2]);
    }
}

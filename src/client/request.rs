//! A request on its way: what is sent for it, what was decided about it, and how it ends.

use std::time::Instant;

use super::answers::Leading;
use super::copy_split::Copied;
use super::cursors::Declaring;
use super::group::Group;
use super::merged::Reading;
use super::named::NamedQuery;
use super::protect::Guard;
use super::relay::Flow;
use super::split::Inserting;
use super::sql_prepare::{self, Renamed};
use super::target_metrics::TargetMetrics;
use crate::backend::Backend;
use crate::base::{Access, Refusal, Role, ServerId, ShardId};
use crate::metrics::Live;
use crate::net::Buffer;
use crate::proto::{Expect, Origin, Part, Replies};
use crate::route::{Decision, Excluded, Subject};
use crate::wire;

/// What is sent to a server for one request of the client.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// A Query message.
    Query(&'a [u8]),
    /// A Query with names of ours in it.
    Renamed(&'a Renamed),
    Named(&'a NamedQuery),
    Group(&'a Group<'a>),
}

impl<'a> Payload<'a> {
    pub fn of_query(
        message: &'a [u8],
        renamed: Option<&'a Renamed>,
        named: Option<&'a NamedQuery>,
    ) -> Payload<'a> {
        match (renamed, named) {
            (Some(it), _) => Payload::Renamed(it),
            (None, Some(it)) => Payload::Named(it),
            (None, None) => Payload::Query(message),
        }
    }

    /// Says what will be owed, and gives the bytes: `Some` as the client sent them, else in `out`.
    pub fn compose(self, server: &mut Backend, out: &mut Vec<u8>) -> Option<&'a [u8]> {
        match self {
            Payload::Query(message) => {
                server.pipeline.push(Expect::Query(Origin::Client));
                // A Query destroys the unnamed statement (manual, "Extended Query").
                server.statements.set_unnamed(None);
                Some(message)
            }
            Payload::Renamed(renamed) => {
                // Close begins no transaction, needs no Sync, and does not mind what is not there.
                for id in server.statements.evict() {
                    wire::close_statement(out, id.server_name().as_bytes());
                    server.pipeline.push(Expect::Close(Origin::Keyway));
                }
                for it in &renamed.needs {
                    sql_prepare::put_in_front(it, server, out);
                }
                server.pipeline.push(Expect::Query(Origin::Client));
                server.statements.set_unnamed(None);
                Some(&renamed.message)
            }
            Payload::Named(named) => Some(named.compose(server)),
            Payload::Group(group) => group.compose(server, out),
        }
    }

    pub fn part(self) -> Part {
        match self {
            Payload::Query(_) | Payload::Renamed(_) | Payload::Named(_) => Part::WHOLE,
            Payload::Group(group) => group.part(),
        }
    }

    /// In bytes, of what is sent for it at least.
    pub fn length(self) -> usize {
        match self {
            Payload::Query(message) => message.len(),
            Payload::Renamed(renamed) => renamed.message.len(),
            Payload::Named(named) => named.message().len(),
            Payload::Group(group) => group.raw.len(),
        }
    }

    /// An answer is complete only with ReadyForQuery: then the request can be made again elsewhere.
    pub fn is_complete(self) -> bool {
        match self {
            Payload::Query(_) | Payload::Renamed(_) | Payload::Named(_) => true,
            Payload::Group(group) => group.is_synced(),
        }
    }
}

/// One request with all that was decided about it.
pub(super) struct Request<'a> {
    pub payload: Payload<'a>,
    pub decision: Decision,
    pub access: Access,
    pub started: Instant,
    /// Should its statement be of no use on a server any more, it can be made again there.
    pub renewable: Renewable,
    /// The text may end a transaction block by itself, so that the one which guards the settings in front of
    /// it would not hold: they are made before it is sent.
    pub ends_blocks: bool,
    /// What it is counted under.
    pub subject: &'a Subject,
    /// `None` where one server does it alone.
    pub parted: Option<Box<Parted<'a>>>,
    pub guard: Guard,
}

impl<'a> Request<'a> {
    pub fn parted(&self) -> Option<&Parted<'a>> {
        self.parted.as_deref()
    }
}

/// What several shards do together, each its part: at most one of these.
#[derive(Default)]
pub(super) struct Parted<'a> {
    pub reading: Option<Reading<'a>>,
    pub inserting: Option<Inserting<'a>>,
    pub copied: Option<Copied<'a>>,
    pub declaring: Option<Declaring<'a>>,
}

/// Where statements can be prepared and run again: only what is a transaction of its own, of which nothing can have run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Renewable {
    /// The server has lost it.
    pub lost: bool,
    /// It is of a table as it was: the client is told anew what its rows are.
    pub outdated: bool,
}

/// How a request to one server goes on being tried.
pub(super) struct Attempt {
    pub shard: ShardId,
    pub role: Role,
    pub excluded: Excluded,
    /// How often it may be made again after a server failed.
    pub tries_left: usize,
    pub may_renew: Renewable,
    /// Others wait for its answer too.
    pub leading: Option<Leading>,
}

impl Attempt {
    pub fn new(shard: ShardId, role: Role, tries_left: usize, request: &Request<'_>) -> Attempt {
        let (excluded, may_renew) = (Excluded::default(), request.renewable);
        Attempt { shard, role, excluded, tries_left, may_renew, leading: None }
    }

    /// Of a request that is sent now, to a server of `role`.
    pub fn flow(&self, role: Role, now: Instant) -> Flow {
        let may_leave = self.tries_left > 0;
        let may_retry = may_leave && role == Role::Replica;
        Flow { may_leave, may_retry, may_renew: self.may_renew, sent_at: Some(now), ..Flow::default() }
    }
}

/// What has come of one try.
pub(super) struct Tried {
    pub server: (ServerId, Role),
    pub replies: Replies,
    pub flow: Flow,
    /// As of when its rows are, where others wait for them.
    pub shown: Option<Instant>,
}

impl Tried {
    pub fn new(server: (ServerId, Role), flow: Flow) -> Tried {
        Tried { server, replies: Replies::default(), flow, shown: None }
    }
}

/// An answer of which the client has some, or could have.
#[derive(Default)]
pub(super) struct Begun {
    /// The start of a message.
    pub buffer: Option<Buffer>,
    /// What the client has not taken yet.
    pub unsent: Option<Vec<u8>>,
}

/// A COPY FROM STDIN under way.
pub(super) struct Copying {
    pub started: Instant,
    pub subject: Subject,
    /// What of its answer has been sent.
    pub flow: Flow,
    pub _live: Option<Live<TargetMetrics>>,
}

/// How a request ended at the servers.
pub(super) enum Ran {
    /// The client has the whole answer; `failed` if it was an error.
    Done {
        failed: bool,
    },
    CopyIn,
    /// Nothing of the end of the answer has been sent yet.
    Refused(Refusal),
    /// The answer but for ReadyForQuery is sent.
    Unready {
        failed: bool,
    },
}

impl Ran {
    pub fn has_failed(&self) -> bool {
        match self {
            Ran::Done { failed } | Ran::Unready { failed } => *failed,
            Ran::CopyIn => false,
            Ran::Refused(_) => true,
        }
    }
}

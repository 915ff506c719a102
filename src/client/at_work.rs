//! What a session keeps from one request to the next so that none allocates; given up when it rests.

use super::group::Op;
use super::observed::Cost;
use super::recent::Recent;
use super::session::Session;
use crate::route::Planned;

pub struct AtWork {
    /// Of the request under way.
    pub(super) cost: Cost,
    recent: Recent,
    /// Where a request is written that does not go out as it came: empty between requests.
    pub outgoing: Vec<u8>,
    /// The room for messages of a group, of which there are none between groups.
    pub(super) ops: Vec<Op<'static>>,
}

impl AtWork {
    pub(super) fn new(cost: Cost) -> AtWork {
        AtWork { cost, recent: Recent::default(), outgoing: Vec::new(), ops: Vec::new() }
    }
}

impl Session {
    pub fn at_work(&mut self) -> &mut AtWork {
        let entropy = self.entropy;
        self.at_work.get_or_insert_with(|| Box::new(AtWork::new(Cost::new(entropy))))
    }

    /// The plan of a text of the simple protocol.
    pub fn plan_of(&mut self, text: &str) -> Planned {
        self.at_work();
        let planned = match &mut self.at_work {
            Some(it) => it.recent.plan(&self.database.router, text),
            None => self.database.router.plan(text),
        };
        if !planned.hit {
            self.record.takes_time();
        }
        planned
    }

    /// A session at rest has no use for it.
    pub fn forget_work(&mut self) {
        self.at_work.take_if(|it| !it.cost.is_of_copy());
    }
}

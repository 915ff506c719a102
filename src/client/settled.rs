//! What several shards answer together is merged by what their catalogs say, of texts above all. Behind DDL that may hold no more until
//! they have been read anew. A read that cannot be merged without it waits for that, is planned once more, and is refused if
//! the doubt stays; all others wait for nothing.
//!
//! ```text
//!  described ──needs no catalog, or that holds──▶ sent to all, and holds still ──▶ merged
//!    ▲   │ needs it, and it may not hold
//!    └───┴─ waits, once ──may not hold still──▶ sent, and refused where texts are to be merged
//! ```

use std::sync::Arc;
use std::time::Instant;

use super::merged::{Asked, Description, Reading, Stop};
use super::relay::Flow;
use super::session::{Held, Session};
use crate::base::{Reason, Refusal, SqlState};
use crate::metrics::Limit;
use crate::route::{SchemaChange, ShardQuery, ShardRead};

/// What each shard is sent of a read.
pub(super) struct Settled {
    pub described: Description,
    pub query: ShardQuery,
    pub basis: Basis,
}

/// What the merge of a read rests on.
#[derive(Clone, Copy)]
pub(super) struct Basis {
    /// Of its plan.
    version: u64,
    /// As `ShardRead::needs_catalog`.
    needs_catalog: bool,
    /// Whether the plan's catalog held when shards were sent it; where it did not, nothing of that is used.
    held: bool,
}

impl Basis {
    /// What merging refuses for want of a catalog is refused for a while.
    pub fn explain(self, stop: Stop) -> Stop {
        match stop {
            Stop::Refused(it)
                if !self.held && self.needs_catalog && it.state() == SqlState::FEATURE_NOT_SUPPORTED =>
            {
                in_doubt().into()
            }
            stop => stop,
        }
    }
}

impl Session {
    /// Whether what a plan of this version has of the shards' catalogs is so still.
    fn holds(&self, version: u64, asked: &Asked<'_>) -> bool {
        !self.database.catalog.is_outdated(&asked.text)
            && version == self.database.router.version()
            && self.schema_change != SchemaChange::Any
    }

    /// Refuses where something has changed that the merge rests on.
    pub fn check_settled(&self, it: Basis, asked: &Asked<'_>) -> Result<(), Refusal> {
        if it.held && it.needs_catalog && !self.holds(it.version, asked) { Err(in_doubt()) } else { Ok(()) }
    }

    /// Lets `first` describe a read, and says what each shard is to be sent.
    pub async fn settle_read(
        &mut self,
        first: &mut Held,
        reading: &Reading<'_>,
        flow: &mut Flow,
    ) -> Result<Settled, Stop> {
        let asked = reading.asked();
        let (mut read, mut version) = reading.planned();
        let mut has_waited = false;
        loop {
            let typing = asked.with_source(|source| read.typing(source))?;
            let described = self.describe(first, asked, typing.as_ref(), flow).await?;
            let (held, needs_catalog) = (self.holds(version, asked), described.needs_catalog(&read)?);
            if needs_catalog && !held && !std::mem::replace(&mut has_waited, true) {
                (read, version) = self.settled_plan(asked).await?;
                continue;
            }
            let basis = Basis { version, needs_catalog, held };
            let query = described.shard_query(&read, asked, held).map_err(|it| basis.explain(it.into()))?;
            return Ok(Settled { described, query, basis });
        }
    }

    /// The plan by the catalogs behind the change.
    async fn settled_plan(&mut self, asked: &Asked<'_>) -> Result<(Arc<ShardRead>, u64), Refusal> {
        let catalog = self.database.catalog.clone();
        if catalog.is_outdated(&asked.text) {
            let (is_read, _) = self.wait_unless_gone(Instant::now(), catalog.settled(&asked.text)).await?;
            if !is_read {
                self.shared.hits.hit(Limit::CatalogWait);
            }
        }
        let plan = self.plan_of(&asked.text).plan;
        match plan.shard_read() {
            Some(read) => Ok((read.clone(), plan.version)),
            None => Err(plan.refusal().cloned().unwrap_or_else(in_doubt)),
        }
    }
}

fn in_doubt() -> Refusal {
    let message = "rows of several shards cannot be merged while the schema changes that says how";
    Refusal::new(Reason::MultiShardRead, SqlState("55006"), message)
        .detail("DDL is under way, or the shards' catalogs have not been read since.")
        .hint("try again when it is done, or restrict the statement to one shard with its shard key")
}

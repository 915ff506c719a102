//! An answer that is there from its first byte to its last, and that the client gets as it is: what a read of a server's
//! socket nearly always finds. Its messages are those that are owed, in their order, which takes no look at each by itself.
//! Whatever is otherwise is for `feed`, which says the same of such an answer.

use smallvec::SmallVec;

use super::{Expect, Origin, Part, Pipeline, Replies};
use crate::proto::StatementId;
use crate::wire::{self, BackendTag, TxStatus};

/// What `feed` would have found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole<'a> {
    /// Of the command tag.
    pub rows: u64,
    /// The command tag, without its zero byte.
    pub tag: &'a [u8],
    /// The statement that the server has from now on.
    pub prepared: Option<StatementId>,
    /// How many Parses of the client are done.
    pub named: usize,
}

impl Whole<'_> {
    /// For who goes on as behind `feed`. No piece is in it.
    pub fn replies(&self) -> Replies {
        let (tag, prepared) = (SmallVec::from_slice(self.tag), self.prepared.into_iter().collect());
        Replies { rows: self.rows, named: self.named, tag, prepared, ..Replies::default() }
    }
}

/// Messages one behind the other. Each step is past the next one; `None` where that is another one, or not all there.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn tag(&self) -> Option<BackendTag> {
        self.rest.first().map(|it| BackendTag(*it))
    }

    fn message(&mut self, tag: BackendTag) -> Option<&'a [u8]> {
        let head = wire::header(self.rest).ok().flatten().filter(|it| it.tag == tag.0)?;
        let (message, rest) = self.rest.split_at_checked(head.total)?;
        self.rest = rest;
        Some(message)
    }

    fn rows(&mut self) -> Option<()> {
        let rows = wire::run_bytes(self.rest, BackendTag::DATA_ROW.0);
        self.rest = self.rest.get(rows..)?;
        Some(())
    }

    fn description(&mut self) -> Option<()> {
        let tag = self.tag().filter(|it| *it == BackendTag::NO_DATA).unwrap_or(BackendTag::ROW_DESCRIPTION);
        self.message(tag).map(drop)
    }

    /// What one command has done.
    fn command(&mut self, whole: &mut Whole<'a>) -> Option<()> {
        self.rows()?;
        whole.tag = wire::copied_tag(self.message(BackendTag::COMMAND_COMPLETE)?);
        whole.rows += wire::rows_of(whole.tag).unwrap_or(0);
        Some(())
    }

    fn ready(&mut self) -> Option<TxStatus> {
        wire::tx_status(self.message(BackendTag::READY_FOR_QUERY)?).ok()
    }
}

impl Pipeline {
    /// `input`, if that is all that is owed, and nothing else; then nothing is owed any more. Else nothing has changed.
    pub fn take_whole<'a>(&mut self, input: &'a [u8]) -> Option<Whole<'a>> {
        if self.part != Part::WHOLE || self.rest > 0 {
            return None;
        }
        let (mut whole, mut walk, mut status) = (Whole::default(), Walk { rest: input }, None);
        for it in &self.owed {
            match it {
                Expect::Query(Origin::Client) => {
                    if walk.tag() == Some(BackendTag::ROW_DESCRIPTION) {
                        walk.description()?;
                    }
                    walk.command(&mut whole)?;
                    status = Some(walk.ready()?);
                }
                Expect::Parse(Origin::Client, id) if whole.prepared.is_none() => {
                    walk.message(BackendTag::PARSE_COMPLETE)?;
                    whole.prepared = Some(*id);
                    whole.named += 1;
                }
                Expect::Bind => walk.message(BackendTag::BIND_COMPLETE).map(drop)?,
                Expect::Describe => walk.description()?,
                Expect::Execute => walk.command(&mut whole)?,
                Expect::Sync => status = Some(walk.ready()?),
                _ => return None,
            }
        }
        self.status = status.filter(|_| walk.rest.is_empty())?;
        self.owed.clear();
        self.moved.clear();
        Some(whole)
    }
}

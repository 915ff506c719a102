//! Portals over several shards that outlive the group which binds them: drivers read them in parts, a group for each. Such
//! a portal is a cursor of several shards (`cursors`) under the portal's name, which Bind declares:
//!
//! ```text
//!           Bind in a transaction            Describe, Execute             Close, the transaction's end
//!   (none) ──────────────────────▶ declared ──────────────────▶ open ──────────────────────────────────▶ (none)
//!                                      └──────── Execute: rows, then PortalSuspended or the end
//! ```
//! Outside of a transaction a portal ends at Sync (manual, "Extended Query"), and needs none of this.

use super::cursors::{By, CursorFormats, CursorPlace, MergedCursor, Told, exists, not_alone};
use super::enlisted::PortalHome;
use super::group::{Group, Op};
use super::many::Team;
use super::merged::{Asked, Step, Stop};
use super::relay::Flow;
use super::session::{End, Outcome, Session};
use crate::base::Refusal;
use crate::merge::ResultFormats;
use crate::route::Decision;
use crate::wire;

impl Session {
    /// The portal that a read of several shards leaves to later groups.
    pub fn portal_left<'a>(&self, group: &Group<'a>, decision: &Decision) -> Option<&'a str> {
        if !decision.mode.reads_many() || self.transaction.is_idle() || group.goes_on {
            return None;
        }
        let name = group.leaves_portal().filter(|_| group.reading().is_some())?;
        std::str::from_utf8(name).ok()
    }

    fn is_merged_portal(&self, name: &[u8]) -> bool {
        let name = std::str::from_utf8(name).ok();
        name.is_some_and(|it| self.cursor_place(it) == Some(CursorPlace::Merged))
    }

    /// A portal of several shards is there already under the name of one to bind, or the one to bind is of several
    /// and its name is taken.
    pub fn check_portal_names(&self, group: &Group<'_>, left: Option<&str>) -> Result<(), Refusal> {
        for portal in group.bound().map(|it| it.bind.portal()).filter(|it| !it.is_empty()) {
            let on_a_shard = || matches!(self.others.portal(portal), Some(PortalHome::On(_)));
            let is_taken = |it: &str| self.cursor_place(it).is_some() || on_a_shard();
            if self.is_merged_portal(portal) || left.is_some_and(is_taken) {
                return Err(exists(&String::from_utf8_lossy(portal)));
            }
        }
        Ok(())
    }

    /// Executes, describes or closes a portal of several shards, where the group does nothing else; `None`: it is
    /// for others.
    pub async fn group_portal(&mut self, group: &Group<'_>) -> Result<Option<Outcome>, End> {
        if self.transaction.is_refused() {
            return Ok(None);
        }
        let Some((name, script)) = group.portal_script() else { return Ok(None) };
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        if !self.is_merged_portal(name.as_bytes()) {
            return Ok(None);
        }
        if group.goes_on {
            return self.refuse_group(not_alone(name), group.end).await.map(Some);
        }
        let told = Told { by: By::Portal, script: &script, is_query: false };
        let ran = self.run_cursor(name, &told, &ResultFormats::default()).await?;
        self.end_cursor_group(group, ran).await.map(Some)
    }

    /// Drivers close a portal in front of what they send next: its cursors end before that runs, and the Close goes
    /// along, as one of a portal that is not there.
    pub async fn close_leading_portals(&mut self, group: &Group<'_>) -> Result<Result<(), Refusal>, End> {
        if self.transaction.is_refused() || group.goes_on {
            return Ok(Ok(()));
        }
        for op in &group.ops {
            let portal = match op {
                Op::ClosePortal { portal, .. } => *portal,
                Op::Bind { .. } | Op::Execute { .. } => break,
                _ => continue,
            };
            if let Ok(name) = std::str::from_utf8(portal)
                && self.is_merged_portal(portal)
                && let Err(refusal) = self.close_cursor(name).await?
            {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    }

    /// The answer to the group that has bound `cursor`.
    pub async fn tell_bound(
        &mut self,
        cursor: &mut MergedCursor,
        team: &mut Team,
        asked: &Asked<'_>,
        parameters: &[u32],
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let mut out = Vec::new();
        for step in &asked.script {
            match step {
                Step::Parsed | Step::Bound | Step::Closed => self.put_done(*step, &mut out),
                Step::Statement => {
                    wire::parameter_description(&mut out, parameters);
                    out.extend_from_slice(cursor.described());
                }
                Step::Portal | Step::Rows(_) => {
                    self.tell_of_portal(cursor, team, *step, &mut out, flow).await?;
                }
            }
        }
        Ok(self.put(&out, flow).await?)
    }

    /// One Describe or Execute.
    pub async fn tell_of_portal(
        &mut self,
        cursor: &mut MergedCursor,
        team: &mut Team,
        step: Step,
        out: &mut Vec<u8>,
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        // A cursor of DECLARE has the formats of what asks for rows first, which a Describe of its name does not.
        let opens = matches!(step, Step::Rows(_)) || *cursor.formats() != CursorFormats::OfFetch;
        if opens && !cursor.is_open() {
            self.open_cursor(cursor, team, &ResultFormats::default(), flow).await?;
        }
        let Step::Rows(limit) = step else {
            out.extend_from_slice(cursor.row_description());
            return Ok(());
        };
        self.put(out, flow).await?;
        out.clear();
        let count = self.fetch(cursor, team, (limit > 0).then_some(limit), true, flow).await?;
        // As PostgreSQL does, it pauses at its limit even where no row is left.
        match limit {
            1.. if count == limit => out.extend_from_slice(wire::PORTAL_SUSPENDED),
            _ => wire::command_complete(out, &format!("SELECT {count}")),
        }
        Ok(())
    }

    /// By Execute, Describe and Close of its name: what else there is, `Group::portal_script` has not.
    pub async fn tell_by_name(
        &mut self,
        cursor: &mut MergedCursor,
        team: &mut Team,
        script: &[Step],
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let mut out = Vec::new();
        for step in script {
            match step {
                Step::Closed => {
                    self.close_on_each(cursor, team, flow).await?;
                    self.put_done(*step, &mut out);
                }
                step => self.tell_of_portal(cursor, team, *step, &mut out, flow).await?,
            }
        }
        Ok(self.put(&out, flow).await?)
    }
}

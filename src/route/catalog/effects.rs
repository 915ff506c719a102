//! What using an object may do besides its answer, through all that it uses in turn: a view through its
//! functions and relations, a table through its triggers, rules, defaults, checks, policies, partitions and
//! cascades, a function through the names in its body.

/// A set of effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects(u8);

impl Effects {
    pub const NONE: Effects = Effects(0);
    /// State that belongs to a session may be left: temporary objects, locks, prepared statements.
    pub const STATE: Effects = Effects(1);
    /// Settings of the session may be changed.
    pub const SETTINGS: Effects = Effects(2);
    /// Not for a replica: it may write, or what it asks is not answered alike by one.
    pub const WRITES: Effects = Effects(4);
    /// A read that a replica does not answer as the primary does: of an unlogged table, of a sequence.
    pub const PRIMARY: Effects = Effects(8);

    /// It may write tables that its name does not tell: what code that Keyway cannot read, or that names tables, does.
    pub const TABLES: Effects = Effects(16);
    /// The same of reads.
    pub const READS: Effects = Effects(32);

    pub const ANYTHING: Effects = Effects(7);

    pub const fn and(self, other: Effects) -> Effects {
        Effects(self.0 | other.0)
    }

    pub const fn only(self, mask: Effects) -> Effects {
        Effects(self.0 & mask.0)
    }

    /// Any of `of`.
    pub const fn has(self, of: Effects) -> bool {
        self.0 & of.0 != 0
    }

    /// Something may be left in the session.
    pub const fn leaves(self) -> bool {
        self.has(Effects::STATE.and(Effects::SETTINGS))
    }
}

/// Who uses whom, by index.
#[derive(Default)]
pub(super) struct Graph {
    effects: Vec<Effects>,
    /// What a node takes over from those that it uses.
    masks: Vec<Effects>,
    /// By the used one.
    users: Vec<Vec<u32>>,
}

impl Graph {
    pub fn new(nodes: usize) -> Graph {
        let all = Effects(u8::MAX);
        Graph { effects: vec![Effects::NONE; nodes], masks: vec![all; nodes], users: vec![Vec::new(); nodes] }
    }

    pub fn add(&mut self, node: usize, effects: Effects) {
        if let Some(it) = self.effects.get_mut(node) {
            *it = it.and(effects);
        }
    }

    pub fn mask(&mut self, node: usize, mask: Effects) {
        if let Some(it) = self.masks.get_mut(node) {
            *it = mask;
        }
    }

    pub fn uses(&mut self, node: usize, used: usize) {
        if let Some(it) = self.users.get_mut(used) {
            it.push(node as u32);
        }
    }

    /// The effects of each node with those of all that it uses. Sets only grow, so circles come to an end.
    pub fn propagate(mut self) -> Vec<Effects> {
        let mut changed: Vec<u32> = (0..self.effects.len() as u32).collect();
        changed.retain(|it| self.effects[*it as usize] != Effects::NONE);
        while let Some(used) = changed.pop() {
            let Some(effects) = self.effects.get(used as usize).copied() else { continue };
            let users = self.users.get(used as usize).map_or(&[][..], Vec::as_slice);
            for &user in users {
                let (at, mask) = (user as usize, self.masks[user as usize]);
                let more = self.effects[at].and(effects.only(mask));
                if more != self.effects[at] {
                    self.effects[at] = more;
                    changed.push(user);
                }
            }
        }
        self.effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_reach_all_that_use_them_in_circles_too() {
        let mut graph = Graph::new(4);
        graph.add(3, Effects::ANYTHING);
        graph.uses(2, 3);
        graph.uses(1, 2);
        graph.uses(2, 1);
        graph.mask(1, Effects::STATE);
        let effects = graph.propagate();
        assert_eq!(effects[0], Effects::NONE);
        assert_eq!(effects[1], Effects::STATE);
        assert_eq!(effects[2], Effects::ANYTHING);
        assert!(effects[1].leaves() && !Effects::WRITES.leaves());
    }
}

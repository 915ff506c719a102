//! How many statements were answered alike, refused by reason, or answered otherwise.

use std::collections::BTreeMap;
use std::fmt;

use super::answer::Case;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Answered,
    /// With the same error.
    Failed,
    /// With Keyway's message.
    Refused(String),
    Different(String),
}

#[derive(Default)]
pub struct Report {
    answered: usize,
    failed: usize,
    refused: BTreeMap<String, Vec<String>>,
    different: Vec<String>,
}

impl Report {
    pub fn add(&mut self, case: &Case, verdict: Verdict) {
        match verdict {
            Verdict::Answered => self.answered += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Refused(reason) => self.refused.entry(reason).or_default().push(case.name.clone()),
            Verdict::Different(how) => self.different.push(format!("{}: {}\n{how}", case.name, case.text)),
        }
    }

    pub fn answered(&self) -> usize {
        self.answered
    }

    pub fn refused(&self) -> usize {
        self.refused.values().map(Vec::len).sum()
    }

    /// The first of them.
    pub fn differences(&self, count: usize) -> String {
        self.different.iter().take(count).cloned().collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answered, refused, different) = (self.answered, self.refused(), self.different.len());
        let failed = self.failed;
        write!(
            f,
            "{answered} answered, {failed} with the same error, {refused} refused, {different} different"
        )?;
        let mut reasons: Vec<_> = self.refused.iter().collect();
        reasons.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
        for (reason, cases) in reasons {
            let first = cases.iter().take(6).cloned().collect::<Vec<_>>().join(" ");
            write!(f, "\n  {:4} refused: {reason} ({first})", cases.len())?;
        }
        Ok(())
    }
}

//! Whether Patroni bears a server out that claims to be the primary: the one that holds the leader lock is, and no other.
//! What a server says of itself is one answer behind: it goes on saying so after its lock was lost, until it is demoted.
//!
//! ```text
//!  unasked ──200──▶ leads ──no answer──▶ doubted ──no answer──▶ unknown
//!     │               ▲ │                  │ │                    │
//!     │               │ └──────────────────┼─┴── other status ──▶ follows
//!     └─ no answer ──▶ unknown             └──200──▶ leads
//! ```
//! All but `leads` and `doubted` object, and end with the next answer. One question without an answer is forgiven to whom had the
//! lock: Patroni starts anew more often than it loses its lock.

use std::sync::Arc;
use std::time::Duration;

use super::feed::Feed;
use crate::config::Address;
use crate::net;

/// Documented to answer 200 on a primary with the leader lock, and there alone (Patroni's manual, "REST API").
const PATH: &str = "/primary";
/// How soon one that leads is asked again, at most: Patroni asks its server for each answer.
const AGAIN_MIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    #[default]
    Unasked,
    Leads,
    Doubted,
    /// The status of the answer.
    Follows(u16),
    Unknown(String),
}

impl Leadership {
    /// True when the objection is another one than before.
    pub fn hear(&mut self, answer: Result<u16, String>) -> bool {
        let next = match answer {
            Ok(200) => Leadership::Leads,
            Ok(status) => Leadership::Follows(status),
            Err(_) if *self == Leadership::Leads => Leadership::Doubted,
            Err(problem) => Leadership::Unknown(problem),
        };
        let before = std::mem::replace(self, next);
        before.objects() != self.objects()
    }

    fn objects(&self) -> bool {
        !matches!(self, Leadership::Leads | Leadership::Doubted)
    }

    /// Why a server that claims to be the primary is not to be believed; `patroni` is who says so.
    pub fn objection(&self, patroni: &Address) -> Option<String> {
        match self {
            Leadership::Leads | Leadership::Doubted => None,
            Leadership::Unasked => Some(format!("patroni at {patroni} has not been asked yet")),
            Leadership::Follows(status) => {
                Some(format!("patroni at {patroni} does not call it the primary: status {status}"))
            }
            Leadership::Unknown(problem) => Some(format!("patroni at {patroni}: {problem}")),
        }
    }
}

/// Asks whenever the server claims to be the primary. Ends never: for the prober to cut off, at any time.
pub async fn ask(feed: &Feed, patroni: &Address) {
    loop {
        feed.claimed.notified().await;
        let asked = net::http_status(&patroni.host, patroni.port, PATH);
        let timeout = feed.spec.timeout;
        let answer = match tokio::time::timeout(timeout, asked).await {
            Ok(answer) => answer.map_err(|it| it.to_string()),
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(timeout))),
        };
        let (is_news, leads) = {
            let mut leadership = feed.leadership.lock();
            (leadership.hear(answer), *leadership == Leadership::Leads)
        };
        if is_news {
            feed.urgent.notify_one();
        }
        let interval = feed.spec.interval;
        tokio::time::sleep(if leads { interval.max(AGAIN_MIN) } else { interval }).await;
    }
}

/// As `ask` of a server that has a Patroni, else nothing, for ever.
pub async fn ask_if_there(feed: Arc<Feed>) {
    match &feed.spec.patroni {
        Some(patroni) => ask(&feed, patroni).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of answers by their status, 0 being none: after each `+` for borne out, `-` for not; `!` behind it for news.
    fn check(answers: &[u16], expect: &str) {
        let mut leadership = Leadership::default();
        let mut told = String::new();
        for status in answers {
            let is_news = leadership.hear(if *status == 0 { Err("refused".into()) } else { Ok(*status) });
            let patroni = Address { host: "db1".into(), port: 8008 };
            told.push(if leadership.objection(&patroni).is_none() { '+' } else { '-' });
            told.push_str(if is_news { "!" } else { "" });
        }
        assert_eq!(told, expect, "{answers:?}");
    }

    #[test]
    fn only_a_leader_is_borne_out() {
        check(&[200, 200, 503, 503, 200], "+!+-!-+!");
        check(&[503, 200], "-+!");
        // What is at that address may not be a Patroni.
        check(&[404, 302, 204], "---");
    }

    #[test]
    fn one_answer_may_be_missing_of_a_leader_and_of_nobody_else() {
        check(&[0, 0, 200], "--+!");
        check(&[200, 0, 200, 0, 0, 0, 200], "+!+++-!-+!");
        check(&[200, 0, 503, 0], "+!+-!-");
        check(&[503, 0], "--");
    }

    #[test]
    fn an_objection_says_who_objects_and_why() {
        let patroni = Address { host: "db1".into(), port: 8008 };
        let of = |it: Leadership| it.objection(&patroni).unwrap();
        assert!(of(Leadership::Unasked).contains("db1:8008 has not been asked yet"));
        assert!(of(Leadership::Follows(503)).ends_with("does not call it the primary: status 503"));
        assert!(of(Leadership::Unknown("refused".into())).ends_with("db1:8008: refused"));
    }
}

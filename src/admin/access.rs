//! Who may see the dashboard and what it tells of keys. Decided from the peer's address and headers alone.
//!
//! Without a token, whoever opens a connection from this machine: a browser here also runs the pages of others, so the
//! name that it asked for is looked at (a foreign name that was made to mean this machine, DNS rebinding), and what a
//! proxy passes on is no connection from here. With a token, whoever has it, from anywhere; browsers keep a cookie that
//! is made of it and runs out, since cookies of a host go to all of its ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::config::{Dashboard, Password};

/// How long a login holds.
pub const LOGIN_S: u64 = 12 * 60 * 60;
/// What a login's cookie is about, so that it is good for nothing else that a token may once be used for.
const COOKIE_CONTEXT: &[u8] = b"keyway dashboard login until ";
/// With one of these, somebody passed the request on.
const FORWARDED: [&str; 5] = ["forwarded", "x-forwarded-for", "x-real-ip", "x-forwarded-host", "via"];

/// What it takes to see the page. Replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub struct Admission {
    token: Option<Password>,
    redact_keys: bool,
    pub streams_max: usize,
}

/// Somebody who may see the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Texts of keys, and snippets that may have some in them.
    pub may_see_keys: bool,
    /// By the cookie of a login, which a logout ends.
    pub is_logged_in: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// Not from this machine, and there is no token.
    Peer,
    /// Asked for under a name that is not this machine's.
    Host,
    /// No token, or not the right one.
    Token,
    /// A page of another site asks.
    Site,
}

impl Denial {
    pub const ALL: [Denial; 4] = [Denial::Peer, Denial::Host, Denial::Token, Denial::Site];

    pub fn label(self) -> &'static str {
        match self {
            Denial::Peer => "peer",
            Denial::Host => "host",
            Denial::Token => "token",
            Denial::Site => "site",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Denial::Peer | Denial::Site => StatusCode::FORBIDDEN,
            Denial::Host => StatusCode::MISDIRECTED_REQUEST,
            Denial::Token => StatusCode::UNAUTHORIZED,
        }
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Denial::Peer => {
                "without `admin_token` in the configuration the dashboard is for browsers on keyway's own machine, and not through a proxy"
            }
            Denial::Host => {
                "the dashboard was asked for under another name than localhost or keyway's address; ask for http://localhost, or set `admin_token` in the configuration"
            }
            Denial::Token => "the dashboard takes the `admin_token` of keyway's configuration",
            Denial::Site => "a page of another site asked for this",
        }
    }
}

/// One request, as far as it says who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub peer: SocketAddr,
    /// Where Keyway listens.
    pub local: SocketAddr,
    pub headers: &'a HeaderMap,
    /// In seconds of Unix time.
    pub now_s: u64,
}

impl Admission {
    pub fn new(dashboard: &Dashboard) -> Admission {
        Admission {
            token: dashboard.admin_token.clone(),
            redact_keys: dashboard.redact_keys,
            streams_max: dashboard.admin_streams_max,
        }
    }

    /// Whether it lets in the same people and tells them the same.
    pub fn is_as(&self, other: &Admission) -> bool {
        self.token == other.token && self.redact_keys == other.redact_keys
    }

    pub fn takes_token(&self) -> bool {
        self.token.is_some()
    }

    pub fn viewer(&self, asking: &Asking<'_>) -> Result<Viewer, Denial> {
        let Some(token) = &self.token else {
            asking.check_is_local()?;
            return Ok(Viewer { may_see_keys: !self.redact_keys, is_logged_in: false });
        };
        let is_logged_in = asking.cookie().is_some_and(|it| is_login(token, it, asking.now_s));
        if is_logged_in || asking.bearer().is_some_and(|it| is_same(it, token.reveal())) {
            return Ok(Viewer { may_see_keys: true, is_logged_in });
        }
        Err(Denial::Token)
    }

    /// The cookie for a browser whose user knows the token.
    pub fn log_in(&self, given: &str, asking: &Asking<'_>) -> Result<String, Denial> {
        asking.check_same_site(&Method::POST)?;
        match &self.token {
            Some(it) if is_same(given, it.reveal()) => {
                let until_s = asking.now_s + LOGIN_S;
                let value = format!("{until_s}.{}", seal(it, until_s));
                Ok(asking.set_cookie(&value, LOGIN_S))
            }
            _ => Err(Denial::Token),
        }
    }
}

impl Asking<'_> {
    fn check_is_local(&self) -> Result<(), Denial> {
        let is_forwarded = FORWARDED.iter().any(|it| self.headers.contains_key(*it));
        if !self.peer.ip().to_canonical().is_loopback() || is_forwarded {
            return Err(Denial::Peer);
        }
        let host = self.headers.get(header::HOST).and_then(|it| it.to_str().ok());
        match host {
            Some(host) if names_this_machine(host, self.local.ip()) => Ok(()),
            _ => Err(Denial::Host),
        }
    }

    /// Links may lead here from anywhere; what a page fetches or posts has to come from this one. Programs that are
    /// no browsers do not say.
    pub fn check_same_site(&self, method: &Method) -> Result<(), Denial> {
        let said = |name: &str| self.headers.get(name).and_then(|it| it.to_str().ok());
        let is_link = *method == Method::GET && said("sec-fetch-mode") == Some("navigate");
        match said("sec-fetch-site") {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) if is_link => Ok(()),
            Some(_) => Err(Denial::Site),
        }
    }

    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    fn cookie(&self) -> Option<&str> {
        cookie(self.headers, &self.cookie_name())
    }

    /// Cookies of one host go to all of its ports: several Keyways must not take each other's.
    fn cookie_name(&self) -> String {
        format!("keyway_login_{}", self.local.port())
    }

    fn set_cookie(&self, value: &str, max_age_s: u64) -> String {
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}", self.cookie_name())
    }

    pub fn log_out(&self) -> String {
        self.set_cookie("", 0)
    }
}

pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    let mut pairs = all.flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
    pairs.find(|it| it.0 == name).map(|it| it.1)
}

/// Whether a Host header can mean nothing but this machine; whatever its port, as a tunnel may have another one.
fn names_this_machine(host: &str, local: IpAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()) => name,
        Some(_) if !host.ends_with(']') => return false,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok_and(|it| it.is_loopback() || it == local)
}

/// `<until when, in Unix seconds>.<its seal>`
fn is_login(token: &Password, cookie: &str, now_s: u64) -> bool {
    let Some((until, sealed)) = cookie.split_once('.') else { return false };
    let Ok(until_s) = until.parse::<u64>() else { return false };
    is_same(sealed, &seal(token, until_s)) && now_s < until_s
}

/// The token cannot be found from it, as long as it cannot be guessed.
fn seal(token: &Password, until_s: u64) -> Arc<str> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(token.reveal().as_bytes()) else { return "".into() };
    mac.update(COOKIE_CONTEXT);
    mac.update(&until_s.to_be_bytes());
    mac.finalize().into_bytes().iter().map(|it| format!("{it:02x}")).collect::<String>().into()
}

/// In the same time, however much of it is right.
fn is_same(given: &str, wanted: &str) -> bool {
    !wanted.is_empty() && bool::from(given.as_bytes().ct_eq(wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";
    const NOW_S: u64 = 1_800_000_000;

    fn access(token: Option<&str>, redact_keys: bool) -> Admission {
        Admission::new(&Dashboard {
            admin_token: token.map(Password::new),
            redact_keys,
            admin_streams_max: 1,
        })
    }

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn ask(
        access: &Admission,
        peer: &str,
        of: &[(&'static str, &str)],
        now_s: u64,
    ) -> Result<Viewer, Denial> {
        let local = "10.1.2.3:9432".parse().unwrap();
        access.viewer(&Asking { peer: peer.parse().unwrap(), local, headers: &headers(of), now_s })
    }

    #[test]
    fn without_a_token_it_is_for_this_machine_alone() {
        let open = access(None, true);
        let viewer = Viewer { may_see_keys: false, is_logged_in: false };
        for peer in ["127.0.0.1:5", "127.8.8.8:5", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
            assert_eq!(ask(&open, peer, &[("host", "localhost:9432")], NOW_S), Ok(viewer), "{peer}");
        }
        for peer in ["10.1.2.3:5", "192.168.0.7:5", "[fe80::1]:5", "[::ffff:10.0.0.1]:5"] {
            assert_eq!(ask(&open, peer, &[("host", "localhost")], NOW_S), Err(Denial::Peer), "{peer}");
        }
        for name in FORWARDED {
            let of = [("host", "localhost"), (name, "for=203.0.113.7")];
            assert_eq!(ask(&open, "127.0.0.1:5", &of, NOW_S), Err(Denial::Peer), "{name}");
        }
        let shown = ask(&access(None, false), "127.0.0.1:5", &[("host", "localhost")], NOW_S);
        assert_eq!(shown, Ok(Viewer { may_see_keys: true, is_logged_in: false }));
    }

    #[test]
    fn a_name_that_was_made_to_mean_this_machine_is_found() {
        let open = access(None, true);
        for host in
            ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9432", "[::1]", "[::1]:80", "10.1.2.3:9432"]
        {
            assert!(ask(&open, "127.0.0.1:5", &[("host", host)], NOW_S).is_ok(), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9432",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.1.2.4",
            "localhost:",
            "localhost:x",
            "[evil]",
            "0.0.0.0:9432",
        ] {
            assert_eq!(ask(&open, "127.0.0.1:5", &[("host", host)], NOW_S), Err(Denial::Host), "{host}");
        }
        assert_eq!(ask(&open, "127.0.0.1:5", &[], NOW_S), Err(Denial::Host), "none");
    }

    #[test]
    fn with_a_token_everybody_needs_it() {
        let closed = access(Some(TOKEN), true);
        let viewer = Viewer { may_see_keys: true, is_logged_in: false };
        let bearer = format!("Bearer {TOKEN}");
        for peer in ["127.0.0.1:5", "203.0.113.7:5"] {
            assert_eq!(ask(&closed, peer, &[("host", "localhost")], NOW_S), Err(Denial::Token));
            let of = [("host", "dashboard.example"), ("authorization", &bearer[..])];
            assert_eq!(ask(&closed, peer, &of, NOW_S), Ok(viewer));
        }
        for wrong in ["Bearer", "Bearer ", "Bearer 0123456789abcdeF", "Basic 0123456789abcdef", TOKEN] {
            let of = [("authorization", wrong)];
            assert_eq!(ask(&closed, "127.0.0.1:5", &of, NOW_S), Err(Denial::Token), "{wrong}");
        }
    }

    #[test]
    fn a_login_holds_for_its_time_and_for_its_token() {
        let closed = access(Some(TOKEN), true);
        let (none, local) = (HeaderMap::new(), "0.0.0.0:9432".parse().unwrap());
        let asking = Asking { peer: "203.0.113.7:5".parse().unwrap(), local, headers: &none, now_s: NOW_S };
        assert_eq!(closed.log_in("0123456789abcde", &asking), Err(Denial::Token));
        assert_eq!(closed.log_in("", &asking), Err(Denial::Token));
        assert_eq!(access(None, true).log_in("", &asking), Err(Denial::Token), "there is none");
        let set = closed.log_in(TOKEN, &asking).unwrap();
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"), "{set}");
        assert!(!set.contains(TOKEN));
        let pair = set.split(';').next().unwrap();
        let with = |cookie: &str, access: &Admission, now_s| {
            let cookie = format!("other=1; {cookie}; keyway_theme=dark");
            ask(access, "203.0.113.7:5", &[("cookie", &cookie)], now_s)
        };
        let viewer = Viewer { may_see_keys: true, is_logged_in: true };
        assert_eq!(with(pair, &closed, NOW_S), Ok(viewer));
        assert_eq!(with(pair, &closed, NOW_S + LOGIN_S - 1), Ok(viewer));
        assert_eq!(with(pair, &closed, NOW_S + LOGIN_S), Err(Denial::Token), "it ran out");
        assert_eq!(with(pair, &access(Some("fedcba9876543210"), true), NOW_S), Err(Denial::Token));
        let longer = pair.replace(&(NOW_S + LOGIN_S).to_string(), &(NOW_S + 9 * LOGIN_S).to_string());
        assert_eq!(with(&longer, &closed, NOW_S), Err(Denial::Token), "its time is sealed");
        assert_eq!(with(&pair.replace("9432", "9433"), &closed, NOW_S), Err(Denial::Token), "another's");
    }

    #[test]
    fn other_sites_may_link_and_nothing_else() {
        let check = |method: Method, of: &[(&'static str, &str)]| {
            let (headers, any) = (headers(of), "127.0.0.1:1".parse().unwrap());
            Asking { peer: any, local: any, headers: &headers, now_s: 0 }.check_same_site(&method)
        };
        let (site, mode) = ("sec-fetch-site", "sec-fetch-mode");
        assert_eq!(check(Method::GET, &[]), Ok(()));
        assert_eq!(check(Method::POST, &[(site, "same-origin")]), Ok(()));
        assert_eq!(check(Method::GET, &[(site, "cross-site"), (mode, "navigate")]), Ok(()));
        assert_eq!(check(Method::GET, &[(site, "cross-site"), (mode, "cors")]), Err(Denial::Site));
        assert_eq!(check(Method::GET, &[(site, "same-site"), (mode, "no-cors")]), Err(Denial::Site));
        assert_eq!(check(Method::POST, &[(site, "cross-site"), (mode, "navigate")]), Err(Denial::Site));
    }
}

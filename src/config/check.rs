//! The file as a whole.

use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeTable;

use super::document::{Findings, Section};
use super::settings::{self, Kind, Setting};
use super::{
    Config, Console, HotspotTerms, Limits, Problem, admin, database, login, peers, telemetry, tls, user,
};

pub fn config(
    text: &str,
    directory: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Vec<Problem>> {
    let findings = Findings::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let offset = error.span().map_or(0, |it| it.start);
            findings.add(offset, error.message().replace('\n', ", "), "TOML: key = value under [section]");
        }
        return Err(findings.into_problems());
    }
    let config = checked(&Section::new("", 0, Some(document.get_ref()), &findings), directory, env);
    let problems = findings.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

fn checked(top: &Section<'_>, directory: &Path, env: &dyn Fn(&str) -> Option<String>) -> Config {
    top.check_keys(settings::TOP);
    let (listen, admin_address) = (address(top, &settings::LISTEN), address(top, &settings::ADMIN));
    if meet(listen, admin_address) {
        top.add(
            ["admin", "listen"].iter().find_map(|it| top.get(it)).map_or(0, |it| it.span().start),
            "`listen` and `admin` are the same address",
            "another port for `admin`",
        );
    }
    let tls = tls::clients(top, directory);
    let users = user::users(top, &tls, directory, env);
    let databases = database::databases(top, &users, directory);
    let console = Console {
        admin_users: login::named_users(top, &settings::ADMIN_USERS, &users),
        stats_users: login::named_users(top, &settings::STATS_USERS, &users),
    };
    let (instance, peers) = peers::peers(top);
    let (workers, limits) = (top.count(&settings::WORKERS), limits(top));
    let dashboard = admin::dashboard(top, directory, env);
    let hotspots = HotspotTerms {
        hotspots: top.flag(&settings::HOTSPOTS),
        hotspot_history: top.text(&settings::HOTSPOT_HISTORY).map(|(path, _)| directory.join(path)),
    };
    if !hotspots.hotspots && databases.iter().any(|it| it.protection.hot_share.is_some()) {
        let offset = top.get(settings::HOTSPOTS.key).map_or(0, |it| it.span().start);
        let message = "`hot_share` protects what is hot, and `hotspots` is false: nothing is counted";
        top.add(offset, message, "hotspots = true, or no `hot_share`");
    }
    let (log, tracing) = (telemetry::log(top), telemetry::tracing(top));
    Config {
        listen,
        admin: admin_address,
        dashboard,
        workers,
        instance,
        peers,
        tls,
        limits,
        users,
        databases,
        console,
        hotspots,
        log,
        tracing,
    }
}

/// Whether two listeners cannot both have their address; port 0 is another one each time.
fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || everywhere)
}

fn address(top: &Section<'_>, setting: &Setting) -> SocketAddr {
    let Kind::Other { default, .. } = setting.kind else { return SocketAddr::from(([127, 0, 0, 1], 0)) };
    let fallback = default.parse().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let Some((text, offset)) = top.text(setting) else { return fallback };
    text.parse().unwrap_or_else(|_| {
        let message = format!("`{}` is \"{text}\", which is no address", setting.key);
        top.add(offset, message, format!("{} = \"{default}\": an IP address and a port", setting.key));
        fallback
    })
}

fn limits(top: &Section<'_>) -> Limits {
    let it = top.section(settings::LIMITS_SECTION.key, "limits");
    it.check_keys(settings::LIMITS);
    Limits {
        clients_max: it.count(&settings::CLIENTS_MAX),
        login_timeout: it.duration(&settings::LOGIN_TIMEOUT).unwrap_or_default(),
        message_bytes_max: it.count(&settings::MESSAGE_BYTES_MAX),
        logins_max: it.count(&settings::LOGINS_MAX),
        cancels_max: it.count(&settings::CANCELS_MAX),
        server_connections_max: it.optional_count(&settings::SERVER_CONNECTIONS_MAX),
        server_logins_max: it.count(&settings::SERVER_LOGINS_MAX),
        statements_max: it.count(&settings::STATEMENTS_MAX),
        statement_bytes_max: it.count(&settings::STATEMENT_BYTES_MAX),
        merge_bytes_max: it.count(&settings::MERGE_BYTES_MAX),
        server_statements_max: it.count(&settings::SERVER_STATEMENTS_MAX),
        server_statement_bytes_max: it.count(&settings::SERVER_STATEMENT_BYTES_MAX),
        plans_max: it.count(&settings::PLANS_MAX),
        client_idle_timeout: it.duration(&settings::CLIENT_IDLE_TIMEOUT),
        idle_in_transaction_timeout: it.duration(&settings::IDLE_IN_TRANSACTION_TIMEOUT),
        aborted_transaction_timeout: it.duration(&settings::ABORTED_TRANSACTION_TIMEOUT),
        unfinished_timeout: it.duration(&settings::UNFINISHED_TIMEOUT),
        query_timeout: it.duration(&settings::QUERY_TIMEOUT),
        cancel_timeout: it.duration(&settings::CANCEL_TIMEOUT).unwrap_or_default(),
        transaction_timeout: it.duration(&settings::TRANSACTION_TIMEOUT),
        channels_max: it.count(&settings::CHANNELS_MAX),
        notification_bytes_max: it.count(&settings::NOTIFICATION_BYTES_MAX),
        shutdown_timeout: it.duration(&settings::SHUTDOWN_TIMEOUT).unwrap_or_default(),
        buffers_max: it.count(&settings::BUFFERS_MAX),
    }
}

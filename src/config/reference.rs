//! `config/reference.toml`, written from the settings.

use super::settings::*;

const REFERENCE_HEAD: &str = "\
# Every key of Keyway's configuration, with what it is for, its bounds and its default.
# The values are the defaults, or examples where there is none; a key that is left out has its default.
# Written from the code (src/config/settings): `cargo test` compares this file with it.
";

const S2: &str = "[\"10.0.2.1:5432\", { address = \"10.0.2.2:5432\", weight = 2, zone = \"a\", patroni = \"http://10.0.2.2:8008\" }]";
const REFERENCE_WIDTH: usize = 100;

/// The text of `config/reference.toml`.
pub fn reference() -> String {
    let mut out = Reference { text: REFERENCE_HEAD.to_owned(), commented: false };
    out.paragraph(false);
    out.settings(&[&LISTEN, &ADMIN, &ADMIN_TOKEN, &REDACT_KEYS, &ADMIN_STREAMS_MAX]);
    out.settings(&[&WORKERS, &INSTANCE, &PEERS, &ADMIN_USERS, &STATS_USERS]);
    out.settings(&[&HOTSPOTS, &HOTSPOT_HISTORY]);
    out.about(&LOG_SECTION).header("log").settings(LOG);
    out.about(&TRACING_SECTION).header("tracing").settings(TRACING);
    out.about(&TLS_SECTION).header("tls").settings(TLS);
    out.about(&LIMITS_SECTION).header("limits").settings(LIMITS);
    out.about(&USERS_SECTION).header("users.app").settings(USER);
    out.about(&DATABASES_SECTION);
    out.comment("The smallest form: one shard, so no statement is refused for sharding.");
    out.header("databases.plain").settings(&[&SERVERS]);
    out.comment("The same with everything said, on two shards.").header("databases.shop");
    out.settings(&[&DBNAME, &MAX_LAG, &CONSISTENCY, &PROBE_USER, &PROBE_INTERVAL, &PROBE_TIMEOUT]);
    out.settings(&[&DNS_INTERVAL, &FAILOVER_HOLD, &FAILOVER_QUEUE]);
    out.settings(&[&CATALOG_INTERVAL, &CATALOG_TIMEOUT, &CATALOG_WAIT, &CATALOG_ROWS_MAX, &SERVER_AUTH]);
    out.settings(&[&SERVER_TLS, &SERVER_CA, &SERVER_CERT, &SERVER_KEY, &SERVER_TLS_NEGOTIATION]);
    out.settings(&[&AUTH_USER, &AUTH_QUERY, &AUTH_QUERY_METHOD, &AUTH_QUERY_TIMEOUT]);
    out.settings(&[&AUTH_QUERY_LIFETIME, &AUTH_QUERY_USERS_MAX]);
    out.settings(&[&DATABASE_CLIENTS_MAX, &DATABASE_CONNECTIONS_MAX]);
    out.settings(&[&REPLICATION_CONNECTIONS_MAX, &POOL_MODE, &DEFAULT_SHARD]);
    out.settings(&[&CROSS_SHARD_WRITES, &CROSS_SHARD_LOCK_TIMEOUT]);
    out.about(&POOL_SECTION).header("databases.shop.pool").settings(POOL);
    out.about(&REPLICAS_SECTION).header("databases.shop.replicas").settings(REPLICAS);
    out.about(&PROTECTION_SECTION).header("databases.shop.protection").settings(PROTECTION);
    out.about(&SHARDS_SECTION);
    out.header("databases.shop.shards.s1").value(&SERVERS, "[\"10.0.1.1:5432\", \"10.0.1.2:5432\"]");
    out.header("databases.shop.shards.s2").value(&SERVERS, S2);
    out.about(&MAPS_SECTION).header("databases.shop.maps.by_user");
    out.settings(&[&MAP_KIND, &MAP_TYPE, &MAP_HASH, &MAP_SLOTS, &MAP_ASSIGN, &MAP_PINNED]);
    out.header("databases.shop.maps.by_time");
    out.value(&MAP_KIND, "\"range\"").value(&MAP_TYPE, "\"timestamptz\"");
    out.settings(&[&MAP_RANGES, &MAP_COLLATION]);
    out.header("databases.shop.maps.by_country");
    out.value(&MAP_KIND, "\"list\"").value(&MAP_TYPE, "\"text\"").settings(&[&MAP_LISTS, &MAP_DEFAULT]);
    out.about(&TABLES_SECTION).header("databases.shop.tables.users").settings(&[&TABLE_MAP, &TABLE_KEY]);
    out.settings(&[&TABLE_SHARE_READS, &TABLE_CACHE_TTL, &TABLE_WRITES_AT_ONCE]);
    out.comment("With its schema, in quotes.").header("databases.shop.tables.\"app.countries\"");
    out.settings(&[&TABLE_REFERENCE]);
    out.header("databases.shop.tables.audit_log").settings(&[&TABLE_SHARD]);
    out.about(&SCHEMAS_SECTION).header("databases.shop.schemas.tenant_a").settings(SCHEMA);
    out.text
}

/// The text so far, and whether it ends in a comment that the next header belongs to.
struct Reference {
    text: String,
    commented: bool,
}

impl Reference {
    /// A blank line comes before a header and the comment above it, never between them.
    fn paragraph(&mut self, commented: bool) {
        if !self.commented {
            self.text.push('\n');
        }
        self.commented = commented;
    }

    fn wrapped(&mut self, comment: &str) {
        let mut width = 0;
        for word in comment.split(' ') {
            let starts = width == 0 || width + 1 + word.len() > REFERENCE_WIDTH;
            match (starts, width) {
                (true, 0) => self.text.push('#'),
                (true, _) => self.text.push_str("\n#"),
                (false, _) => {}
            }
            self.text.push(' ');
            self.text.push_str(word);
            width = if starts { 1 } else { width } + 1 + word.len();
        }
        self.text.push('\n');
    }

    fn comment(&mut self, text: &str) -> &mut Reference {
        self.paragraph(true);
        self.wrapped(text);
        self
    }

    fn about(&mut self, section: &Setting) -> &mut Reference {
        self.comment(&format!("{}: {}.", section.key, section.reason))
    }

    fn header(&mut self, path: &str) -> &mut Reference {
        self.paragraph(false);
        self.text.push_str(&format!("[{path}]\n"));
        self
    }

    fn value(&mut self, setting: &Setting, value: &str) -> &mut Reference {
        self.text.push_str(&format!("{} = {value}\n", setting.key));
        self
    }

    fn settings(&mut self, settings: &[&Setting]) -> &mut Reference {
        for it in settings {
            let (bound, value) = bound_and_value(it);
            self.wrapped(&format!("{} ({bound}).", it.reason));
            self.value(it, &value);
        }
        self
    }
}

fn bound_and_value(setting: &Setting) -> (String, String) {
    match &setting.kind {
        Kind::Count { default, min, max } => {
            (format!("{min} to {max}, default {default}"), default.to_string())
        }
        Kind::OptionalCount { min, max } => {
            (format!("{min} to {max} or \"off\", default \"off\""), "\"off\"".to_owned())
        }
        Kind::Duration { default, min, max, may_be_off } => {
            let off = if *may_be_off { " or \"off\"" } else { "" };
            (format!("\"{min}\" to \"{max}\"{off}, default \"{default}\""), format!("\"{default}\""))
        }
        Kind::Other { example, default } if default.starts_with("required") => {
            ((*default).to_owned(), (*example).to_owned())
        }
        Kind::Other { example, default } => (format!("default: {default}"), (*example).to_owned()),
    }
}

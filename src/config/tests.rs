use super::*;
use crate::shard::{KeyValue, partition_hash};

const VALID: &str = r#"
[users.app]
password = "secret"
[databases.shop.shards.s1]
servers = ["10.0.0.1:5432", "[::1]:5433"]
[databases.shop.shards.s2]
servers = ["db2"]
[databases.shop.maps.by_user]
kind = "hash"
type = "bigint"
[databases.shop.maps.by_time]
kind = "range"
type = "timestamptz"
ranges = [{ to = 2026-01-01T00:00:00Z, shard = "s1" }, { from = "2026-01-01T00:00:00Z", shard = "s2" }]
[databases.shop.tables.users]
map = "by_user"
key = "user_id"
[databases.shop.tables."app.countries"]
reference = true
"#;

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(text, Path::new("."), &|name| (name == "SET").then(|| "from env".to_owned()))
}

fn problems(text: &str) -> Vec<String> {
    parse(text).map(|_| Vec::new()).unwrap_or_else(|it| it.iter().map(ToString::to_string).collect())
}

#[test]
fn a_sharded_config_loads_with_its_defaults() {
    let config = parse(VALID).unwrap();
    let shop = config.database("shop").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:6432");
    assert_eq!(shop.shards.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["s1", "s2"]);
    assert_eq!(shop.shards[0].servers[1].to_string(), "[::1]:5433");
    assert_eq!(shop.shards[1].servers[0], Address { host: "db2".into(), port: 5432 });
    assert_eq!((shop.max_lag, shop.pool.size), (Duration::from_secs(1), 20));
    assert_eq!((shop.probe.user.as_str(), shop.dbname.as_str()), ("app", "shop"));
    assert_eq!((shop.maps[0].parts(), shop.maps[1].parts()), (4096, 2));
    let users = TableName { schema: None, name: "users".into() };
    assert_eq!(shop.tables[&users], TableRule::Sharded { map: 0, key: vec!["user_id".into()] });
    assert!(config.limits.client_idle_timeout.is_none());
}

#[test]
fn sessions_are_for_databases_of_one_shard() {
    let plain = "[users.app]\npassword = \"x\"\npool_mode = \"session\"\n\
        [databases.plain]\nservers = [\"db1\"]\npool_mode = \"session\"\n";
    let config = parse(plain).unwrap();
    assert_eq!(config.databases[0].pool_mode, PoolMode::Session);
    assert_eq!(config.users[0].pool_mode, Some(PoolMode::Session));
    assert_eq!(parse(VALID).unwrap().databases[0].pool_mode, PoolMode::Transaction);
    let of_user = problems(&VALID.replace("\"secret\"", "\"secret\"\npool_mode = \"session\""));
    assert!(of_user.concat().contains("user `app` is \"session\" and database `shop` has several shards"));
    let of_database = format!("{VALID}[databases.shop]\npool_mode = \"session\"\n");
    assert!(problems(&of_database).concat().contains("`pool_mode` is \"session\" and database `shop`"));
    let unknown = problems(&plain.replace("\"session\"", "\"statement\""));
    assert!(unknown.concat().contains("`pool_mode` is \"statement\""), "{unknown:?}");
}

#[test]
fn passwords_come_from_text_environment_or_file_and_are_never_shown() {
    let directory = std::env::temp_dir().join(format!("keyway-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("secret"), "from file\n").unwrap();
    let with = |password: &str| {
        let text = VALID.replace("\"secret\"", password);
        let config = Config::parse(&text, &directory, &|name| (name == "SET").then(|| "from env".to_owned()));
        config.unwrap().users[0].password.as_ref().unwrap().plain().unwrap().clone()
    };
    assert_eq!(&**with("\"plain\"").reveal(), "plain");
    assert_eq!(&**with("{ env = \"SET\" }").reveal(), "from env");
    assert_eq!(&**with("{ file = \"secret\" }").reveal(), "from file");
    assert_eq!(format!("{:?}", with("\"plain\"")), "Password(..)");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn keyway_itself_logs_in_with_passwords_that_it_has() {
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let stored = VALID.replace("secret", verifier);
    let found = problems(&stored);
    assert!(found.len() == 1 && found[0].contains("no user can watch the servers"), "{found:?}");
    let both = stored.replace("[users.app]", "[users.watch]\nauth = \"trust\"\n[users.app]");
    assert_eq!(parse(&both).unwrap().databases[0].probe.user, "watch");
    let section = "[databases.shop]\nauth_user = \"app\"\n[databases.shop.shards.s1]";
    let found = problems(&both.replace("[databases.shop.shards.s1]", section));
    assert!(found.len() == 1 && found[0].contains("the password itself is not known"), "{found:?}");
    let found = problems(&both.replace("[users.app]", "[users.app]\nauth = \"trust\""));
    assert!(found.len() == 1 && found[0].contains("a SCRAM verifier that nothing will use"), "{found:?}");
}

#[test]
fn all_errors_are_told_at_once_in_the_order_of_the_file() {
    let text =
        "listen = 5\n[users.app]\nauth = \"ldap\"\n[databases.shop]\nservrs = []\nmax_lag = \"soon\"\n";
    let found = problems(text);
    let starts = [
        "line 1: `listen`",
        "line 2: user `app` has no password",
        "line 3: `auth`",
        "line 4: database `shop` has no servers",
        "line 5: unknown key `servrs`",
        "line 6: `max_lag`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
        assert!(found.contains("; write "), "{found}");
    }
    assert!(found[4].ends_with("write `servers`"), "{}", found[4]);
}

/// One change to the valid file, and the problem that it makes: line and words.
const MISTAKES: &[(&str, &str, usize, &str)] = &[
    ("password = \"secret\"", "password = \"\"", 3, "the password is empty"),
    ("password = \"secret\"", "password = { env = \"UNSET\" }", 3, "environment variable UNSET is not set"),
    ("password = \"secret\"", "password = { file = \"/no/such\" }", 3, "cannot read password file"),
    ("password = \"secret\"", "password = \"SCRAM-SHA-256$4096:x\"", 3, "the SCRAM verifier is malformed"),
    ("password = \"secret\"", "password = \"md5a3556571e93b0d20722ba62be61e8c2d\"", 3, "an MD5 digest"),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\nserver_auth = [\"ldap\"]\n[databases.shop.shards.s1]",
        5,
        "a method that keyway does not know",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\nauth_query = \"SELECT\"\n[databases.shop.shards.s1]",
        5,
        "nobody to run it",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\nauth_user = \"app\"\nauth_query = \"SELECT\"\n[databases.shop.shards.s1]",
        6,
        "asks for no user",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\nauth_user = \"app\"\nauth_query_method = \"trust\"\n[databases.shop.shards.s1]",
        6,
        "`auth_query_method` is",
    ),
    ("password = \"secret\"", "password = { url = \"x\" }", 3, "neither a string nor a place"),
    ("password = \"secret\"", "password = 5", 3, "neither a string nor a place"),
    ("password = \"secret\"", "pasword = \"secret\"", 3, "unknown key `pasword` in [users.app]"),
    ("[users.app]", "[user.app]", 2, "unknown key `user`"),
    ("servers = [\"db2\"]", "servers = []", 7, "`servers` has 0 servers"),
    ("servers = [\"db2\"]", "servers = [\"10.0.0.1:5432\"]", 7, "first in line 5"),
    ("servers = [\"db2\"]", "servers = [\"[db2]:5432\"]", 7, "is no server"),
    ("servers = [\"db2\"]", "servers = [\"/run/postgresql\"]", 7, "is no server"),
    ("password = \"secret\"", "password = \"a\\u0000b\"", 3, "has a zero byte"),
    ("password = \"secret\"", "password = { file = \"/dev/zero\" }", 3, "no file of at most"),
    ("password = \"secret\"", "password = { env = \"SET\", file = \"x\" }", 3, "neither a string nor"),
    ("[users.app]", "[users.\"\"]", 2, "cannot be the name of a user"),
    ("[users.app]", "listen = \"0.0.0.0:9432\"\n[users.app]", 2, "the same address"),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\ndbname = \"\"\n[databases.shop.shards.s1]",
        5,
        "cannot be the name of a database",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\nmax_lag = \"50ms\"\n[databases.shop.shards.s1]",
        5,
        "`max_lag` is below `probe_interval`",
    ),
    (
        "reference = true",
        "reference = true\n[databases.shop.tables.USERS]\nreference = true",
        20,
        "is the one of line 15",
    ),
    ("key = \"user_id\"", "key = \"user id\"", 17, "is no column name"),
    ("key = \"user_id\"", "key = \"user_id\"\nfoo = 1", 18, "unknown key `foo`"),
    ("servers = [\"db2\"]", "servers = \"db2\"", 7, "`servers` is of type string"),
    ("servers = [\"db2\"]", "servers = [\"db2:0\"]", 7, "\"db2:0\" is no server"),
    ("servers = [\"db2\"]", "servers = [\"db2:x\"]", 7, "is no server"),
    ("servers = [\"db2\"]", "servers = [\"::1\"]", 7, "is no server"),
    ("servers = [\"db2\"]", "servers = [\"a b\"]", 7, "is no server"),
    ("servers = [\"db2\"]", "servers = [5]", 7, "5 is no server"),
    ("servers = [\"db2\"]", "servers = [\"10.0.0.1\"]", 7, "stands twice"),
    ("servers = [\"db2\"]", "", 6, "no `servers` in [databases.shop.shards.s2]"),
    ("kind = \"hash\"", "kind = \"tree\"", 9, "`kind` is \"tree\""),
    ("kind = \"hash\"", "kind = \"list\"", 8, "the map has no `lists`"),
    ("kind = \"hash\"", "kind = \"list\"\nlists = [{ values = [], shard = \"s1\" }]", 10, "no `values`"),
    (
        "kind = \"hash\"",
        "kind = \"list\"\nlists = [{ values = [1, 2], shard = \"s1\" },\n{ values = [\"0002\"], shard = \"s2\" }]",
        11,
        "value 2 stands twice, first in line 10",
    ),
    (
        "kind = \"hash\"",
        "kind = \"list\"\nlists = [{ values = [\"x\"], shard = \"s1\" }]",
        10,
        "invalid input syntax for type bigint",
    ),
    (
        "kind = \"hash\"",
        "kind = \"list\"\ndefault = \"s9\"\nlists = [{ values = [1], shard = \"s1\" }]",
        10,
        "\"s9\" is no shard",
    ),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\npinned = [{ key = 1.5, shard = \"s1\" }]",
        11,
        "`key`: invalid",
    ),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\npinned = [{ key = 1, shard = \"s9\" }]",
        11,
        "\"s9\" is no shard",
    ),
    ("type = \"bigint\"", "type = \"bigint\"\npinned = [{ shard = \"s1\" }]", 11, "no `key`"),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\npinned = [{ key = 0x10, shard = \"s1\" },\n{ key = 16, shard = \"s2\" }]",
        12,
        "key 16 stands twice, first in line 11",
    ),
    ("type = \"bigint\"", "type = \"enum\"\nhash = \"postgres\"", 8, "by the oid of its label"),
    ("type = \"bigint\"", "type = [\"bigint\", \"money\"]", 10, "\"money\", which cannot be"),
    ("type = \"bigint\"", "type = []", 10, "a key has 1 to 4 columns, not 0"),
    (
        "type = \"bigint\"",
        "type = [\"bigint\", \"text\"]",
        17,
        "`key` has 1 columns, the keys of map `by_user` have 2",
    ),
    ("type = \"bigint\"", "type = \"varchar(0)\"", 10, "length or precision"),
    ("type = \"timestamptz\"", "type = \"text\"", 11, "not known"),
    ("type = \"timestamptz\"", "type = \"text\"\ncollation = \"en_US\"", 14, "collation \"en_US\""),
    ("type = \"timestamptz\"", "type = \"enum\"", 11, "the order of an enum's labels"),
    ("reference = true", "shard = \"s9\"", 19, "\"s9\" is no shard"),
    ("reference = true", "reference = true\nshard = \"s1\"", 18, "a reference table or one of one shard"),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\ndefault_shard = \"s9\"\n[databases.shop.shards.s1]",
        5,
        "no shard",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop.schemas.a]\nshard = \"s9\"\n[databases.shop.shards.s1]",
        5,
        "no shard",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop.schemas.pg_toast]\nshard = \"s1\"\n[databases.shop.shards.s1]",
        4,
        "no schema of tables",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop.protection]\nhot_share = 1.5\n[databases.shop.shards.s1]",
        5,
        "`hot_share` is",
    ),
    (
        "[users.app]",
        "hotspots = false\n[databases.shop.protection]\nhot_share = 0.1\n[users.app]",
        2,
        "nothing is counted",
    ),
    ("key = \"user_id\"", "key = \"user_id\"\ncache_ttl = \"0s\"", 18, "`cache_ttl` is"),
    ("kind = \"hash\"", "", 8, "map `by_user` has no `kind`"),
    ("type = \"bigint\"", "type = \"money\"", 10, "which cannot be a shard key"),
    ("type = \"bigint\"", "", 8, "the map has no `type`"),
    ("type = \"bigint\"", "type = \"bigint\"\nslots = 100", 11, "`slots` is 100"),
    ("type = \"bigint\"", "type = \"bigint\"\nslots = 0", 11, "`slots` is 0"),
    ("type = \"bigint\"", "type = \"bigint\"\nslots = 1", 8, "1 slots for 2 shards"),
    ("type = \"bigint\"", "type = \"bigint\"\nhash = \"md5\"", 11, "`hash` is \"md5\""),
    ("type = \"bigint\"", "type = \"bigint\"\nranges = []", 11, "a hash map has no `ranges`"),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\nassign = [{ slots = \"0-4095\", shard = \"s3\" }]",
        11,
        "\"s3\" is no shard",
    ),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\nassign = [{ slots = \"0-4000\", shard = \"s1\" }]",
        11,
        "slot 4001 is assigned to no shard",
    ),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\nassign = [{ slots = \"0-4096\", shard = \"s1\" }]",
        11,
        "is no run of slots",
    ),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\nassign = [{ slots = \"0-9\", shard = \"s1\" }, { slots = \"9-4095\", shard = \"s2\" }]",
        11,
        "slot 9 is assigned twice",
    ),
    (
        "type = \"bigint\"",
        "type = \"bigint\"\nassign = [{ slot = \"0-9\", shard = \"s1\" }]",
        11,
        "unknown key `slot`",
    ),
    (
        "{ to = 2026-01-01T00:00:00Z, shard = \"s1\" }",
        "{ to = 2025-01-01T00:00:00Z, shard = \"s1\" }",
        14,
        "no range covers the keys between range 1 of line 14 and range 2",
    ),
    (
        "{ to = 2026-01-01T00:00:00Z, shard = \"s1\" }",
        "{ to = 2027-01-01T00:00:00Z, shard = \"s1\" }",
        14,
        "range 2 overlaps range 1 of line 14",
    ),
    (
        "{ to = 2026-01-01T00:00:00Z, shard = \"s1\" }",
        "{ to = \"2026-01-01\", shard = \"s1\" }",
        14,
        "depends on the session's time zone",
    ),
    (
        "{ to = 2026-01-01T00:00:00Z, shard = \"s1\" }",
        "{ to = \"soon\", shard = \"s1\" }",
        14,
        "cannot tell which shard",
    ),
    ("{ to = 2026-01-01T00:00:00Z, shard = \"s1\" }", "{ to = 2026-01-01T00:00:00Z }", 14, "no `shard`"),
    ("ranges = [", "slots = 16\nranges = [", 14, "a range map has no `slots`"),
    ("map = \"by_user\"", "map = \"by_usr\"", 16, "there is no map `by_usr`"),
    ("map = \"by_user\"", "map = \"by_user\"\nreference = true", 15, "and has a map or key"),
    ("key = \"user_id\"", "", 15, "table `users` has no map and key"),
    ("reference = true", "reference = \"yes\"", 19, "`reference` is of type string"),
    ("\"app.countries\"", "\"a.b.c\"", 18, "\"a.b.c\" is no table name"),
    ("[users.app]", "admin = \"127.0.0.1:6432\"\n[users.app]", 2, "the same address"),
    ("[users.app]", "listen = \"localhost:1\"\n[users.app]", 2, "which is no address"),
    ("[users.app]", "workers = -1\n[users.app]", 2, "`workers` is -1"),
    ("[users.app]", "[limits]\nlogin_timeout = \"1ms\"\n[users.app]", 3, "`login_timeout` is \"1ms\""),
    ("[users.app]", "[limits]\nclients_max = 0\n[users.app]", 3, "`clients_max` is 0"),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\nservers = [\"x\"]\n[databases.shop.shards.s1]",
        4,
        "has both `servers` and `shards`",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop]\nprobe_user = \"bob\"\n[databases.shop.shards.s1]",
        5,
        "names no user",
    ),
    (
        "[databases.shop.shards.s1]",
        "[databases.shop.pool]\nsize = \"big\"\n[databases.shop.shards.s1]",
        5,
        "`size` is \"big\"",
    ),
    ("[users.app]", "listen = \n[users.app]", 2, "string values must be quoted"),
];

#[test]
fn maps_of_every_kind_and_homes_of_tables_load() {
    let text = VALID.replace(
        "[databases.shop.tables.users]",
        r#"[databases.shop.maps.by_tenant]
kind = "hash"
hash = "postgres"
type = ["bigint", "varchar(20)"]
slots = 6
assign = [{ slots = "0-4", shard = "s1" }, { slots = "5", shard = "s2" }]
[[databases.shop.maps.by_tenant.pinned]]
key = [42, "big"]
shard = "s2"
[databases.shop.maps.by_country]
kind = "list"
type = "text"
lists = [{ values = ["de", "at"], shard = "s1" }]
default = "s2"
[databases.shop.maps.by_name]
kind = "range"
type = "text"
collation = "C"
ranges = [{ to = "m", shard = "s1" }, { from = "m", shard = "s2" }]
[databases.shop.tables.notes]
map = "by_tenant"
key = ["tenant", "Name"]
[databases.shop.tables.audit]
shard = "s2"
[databases.shop.schemas.Tenant_A]
shard = "s1"
[databases.shop.tables.users]"#,
    );
    let text = text.replace(
        "[databases.shop.shards.s1]",
        "[databases.shop]\ndefault_shard = \"s2\"\n[databases.shop.shards.s1]",
    );
    let config = parse(&text).unwrap();
    let shop = config.database("shop").unwrap();
    let map = |name: &str| shop.maps.iter().find(|it| it.name == name).unwrap();
    let row =
        |number, word: &str| KeyValue::Row(Box::new([KeyValue::Int(number), KeyValue::Text(word.into())]));
    let pinned = map("by_tenant").locate(&row(42, "big")).unwrap();
    assert_eq!((pinned.shard, pinned.part, map("by_tenant").parts()), (ShardId(1), 6, 7));
    let other = map("by_tenant").locate(&row(42, "small")).unwrap();
    assert_eq!(u64::from(other.part), partition_hash(&row(42, "small")) % 6);
    assert_eq!(map("by_country").locate(&KeyValue::Text("fr".into())).unwrap().shard, ShardId(1));
    assert_eq!(map("by_name").locate(&KeyValue::Text("a".into())).unwrap().shard, ShardId(0));
    let rule = |name: &str| shop.tables[&TableName { schema: None, name: name.into() }].clone();
    let key = vec!["tenant".to_owned(), "name".to_owned()];
    assert_eq!(rule("notes"), TableRule::Sharded { map: 2, key });
    assert_eq!(rule("audit"), TableRule::Shard(ShardId(1)));
    assert_eq!(shop.schemas, BTreeMap::from([("tenant_a".to_owned(), ShardId(0))]));
    assert_eq!(shop.default_shard, Some(ShardId(1)));
}

#[test]
fn tables_may_be_protected_wherever_they_live() {
    let text = VALID
        .replace("key = \"user_id\"", "key = \"user_id\"\nshare_reads = true\ncache_ttl = \"2s\"")
        + "\n[databases.shop.tables.plain]\nwrites_at_once = 3\n[databases.shop.protection]\nhot_share = 0.25\n";
    let config = Config::parse(&text, Path::new("."), &|_| None).unwrap();
    let shop = config.database("shop").unwrap();
    let of = |name: &str| shop.table_protection.get(&TableName { schema: None, name: name.into() }).copied();
    let (cache_ttl, none) = (Some(Duration::from_secs(2)), TableProtection::NONE);
    assert_eq!(of("users"), Some(TableProtection { share_reads: true, cache_ttl, ..none }));
    assert_eq!(of("plain"), Some(TableProtection { writes_at_once: Some(3), ..none }));
    assert!(!shop.tables.contains_key(&TableName { schema: None, name: "plain".into() }), "it has no place");
    assert_eq!(shop.protection.hot_share, Some(Share(250)));
    assert_eq!(shop.table_protection.len(), 2);
}

#[test]
fn each_mistake_has_its_line_and_words() {
    for &(from, to, line, words) in MISTAKES {
        assert!(VALID.contains(from), "{from}");
        let found = problems(&VALID.replacen(from, to, 1));
        let hit = found.iter().any(|it| it.starts_with(&format!("line {line}: ")) && it.contains(words));
        assert!(hit, "{to}: want line {line}, {words}; got {found:#?}");
    }
}

#[test]
fn a_file_without_users_or_databases_says_so() {
    let found = problems("");
    assert!(found[0].contains("no user is configured"), "{found:?}");
    assert!(found[1].contains("no database is configured"), "{found:?}");
}

/// By the maps alone: the first and last key of each shard are found by looking keys up.
#[test]
fn slots_are_dealt_evenly_to_any_number_of_shards() {
    use crate::shard::KeyValue;
    for shards in [1usize, 2, 3, 5, 7, 16] {
        let mut text = "[users.app]\npassword = \"x\"\n[databases.d.maps.m]\nkind = \"hash\"\n".to_owned();
        text.push_str("type = \"bigint\"\nslots = 64\n");
        for shard in 0..shards {
            text.push_str(&format!("[databases.d.shards.s{shard}]\nservers = [\"h{shard}\"]\n"));
        }
        let config = parse(&text).unwrap();
        let map = &config.databases[0].maps[0];
        let mut owners = [None; 64];
        for key in 0..5_000 {
            let place = map.locate(&KeyValue::Int(key)).unwrap();
            owners[place.part as usize] = Some(usize::from(place.shard.0));
        }
        let owners: Vec<usize> = owners.into_iter().map(Option::unwrap).collect();
        assert!(owners.is_sorted(), "runs are contiguous: {owners:?}");
        for shard in 0..shards {
            let count = owners.iter().filter(|it| **it == shard).count();
            assert!((64 / shards..=64usize.div_ceil(shards)).contains(&count), "{shards}: {owners:?}");
        }
    }
}

/// A certificate with its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["db".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Files for TLS: `a.crt` and `a.key` belong together, `b.key` is another's, `no.pem` has nothing.
fn tls_files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let ((cert, key), (_, other)) = (certificate(), certificate());
    for (name, text) in [("a.crt", &*cert), ("a.key", &key), ("b.key", &other), ("no.pem", "nothing")] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn tls_loads_with_its_defaults() {
    let directory = tls_files();
    let config = |text: &str| Config::parse(text, directory.path(), &|_| None).unwrap();
    let none = parse(VALID).unwrap();
    assert_eq!((none.tls.mode, none.databases[0].server_tls.mode), (TlsMode::Disable, TlsMode::Prefer));
    let tls = config(&format!("[tls]\ncert = \"a.crt\"\nkey = \"a.key\"\n{VALID}")).tls;
    assert_eq!((tls.mode, tls.min_version), (TlsMode::Prefer, TlsVersion::V1_2));
    assert!(tls.identity.is_some() && tls.authorities.is_none());
    let full = VALID.replace(
        "[databases.shop.shards.s1]",
        "[databases.shop]\nserver_tls = \"verify-full\"\nserver_ca = \"a.crt\"\nserver_cert = \"a.crt\"\n\
         server_key = \"a.key\"\nserver_tls_negotiation = \"direct\"\n[databases.shop.shards.s1]",
    );
    let server = config(&full).databases.remove(0).server_tls;
    assert!(server.is_direct && server.authorities.is_some() && server.identity.is_some());
    let users = VALID.replace("password = \"secret\"", "auth = \"cert\"");
    let section = "[tls]\nmode = \"verify-full\"\ncert = \"a.crt\"\nkey = \"a.key\"\nca = \"a.crt\"\n";
    assert_eq!(config(&format!("{section}{users}")).users[0].auth, Auth::Cert);
    // What is off is not looked at.
    config(&format!("[tls]\nmode = \"disable\"\ncert = \"none\"\n{VALID}"));
}

#[test]
fn every_mistake_in_tls_is_told_with_its_line() {
    let directory = tls_files();
    let check = |tls: &str, database: &str, wants: &[&str]| {
        let text = VALID.replace(
            "[databases.shop.shards.s1]",
            &format!("[databases.shop]\n{database}\n[databases.shop.shards.s1]"),
        );
        let text = format!("{tls}\n{}", text.trim_start());
        let found = Config::parse(&text, directory.path(), &|_| None).map(|_| Vec::new());
        let found = found.unwrap_or_else(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(found.len(), wants.len(), "{found:#?}");
        for (found, want) in found.iter().zip(wants) {
            assert!(found.contains(want) && found.contains("; write "), "{found} has no {want}");
        }
    };
    let files = "cert = \"a.crt\"\nkey = \"a.key\"";
    check("[tls]", "", &["line 1: [tls] has nothing to show to clients"]);
    check(
        "[tls]\nmode = \"on\"\nmin_version = \"1.1\"\ncert = \"a.crt\"",
        "",
        &["line 2: `mode` is \"on\"", "line 3: `min_version`", "line 4: `cert` is there without `key`"],
    );
    check(
        "[tls]\ncert = \"x.crt\"\nkey = \"no.pem\"\nca = \"no.pem\"",
        "",
        &[
            "line 2: cannot read the file of `cert`, x.crt",
            "line 3: the file of `key` has no private key",
            "line 4: the file of `ca` has no certificate",
        ],
    );
    check("[tls]\ncert = \"a.crt\"\nkey = \"b.key\"", "", &["line 3: `key` is not the key of `cert`"]);
    let verify = format!("[tls]\nmode = \"verify-ca\"\n{files}");
    check(&verify, "", &["line 1: there is nothing to verify by: no `ca`"]);
    let cert = format!("[tls]\n{files}\n[users.other]\nauth = \"cert\"");
    check(&cert, "", &["line 5: user `other` shows a certificate"]);
    check("", "server_tls = \"verify-full\"", &["nothing to verify by: no `server_ca`"]);
    check("", "server_ca = \"a.crt\"", &["`server_ca` is there, and `server_tls` does not"]);
    check("", "server_tls = \"yes\"", &["`server_tls` is \"yes\""]);
    check("", "server_key = \"a.key\"", &["`server_key` is there without `server_cert`"]);
    check("", "server_tls_negotiation = \"direct\"", &["leaves no way to go without TLS"]);
    check("", "server_tls_negotiation = \"late\"", &["`server_tls_negotiation` is \"late\""]);
}

#[test]
fn writes_of_several_shards_are_refused_unless_the_database_says_otherwise() {
    let with = |more: &str| parse(&format!("{VALID}\n[databases.shop]\n{more}\n"));
    let shop = |more: &str| with(more).unwrap().database("shop").unwrap().clone();
    let default = shop("");
    assert_eq!(default.cross_shard_writes, CrossShardWrites::Refuse);
    assert_eq!(default.cross_shard_lock_timeout, Some(Duration::from_secs(10)));
    let allowed = shop("cross_shard_writes = \"one_phase\"\ncross_shard_lock_timeout = \"off\"");
    assert_eq!(allowed.cross_shard_writes, CrossShardWrites::OnePhase);
    assert_eq!(allowed.cross_shard_lock_timeout, None);
    let problems = with("cross_shard_writes = \"two_phase\"").unwrap_err();
    assert!(problems[0].to_string().contains("cross_shard_writes"), "{}", problems[0]);
    let (before, after) = (with("").unwrap(), with("cross_shard_writes = \"one_phase\"").unwrap());
    let difference = Difference::between(&before, &after).to_string();
    assert_eq!(difference, "database shop: cross_shard_writes");
}

#[test]
fn peers_have_numbers_and_addresses() {
    let with = |lines: &str| problems(&format!("{lines}\n{VALID}"));
    let text = format!(
        "instance = 1\npeers = [{{ instance = 1, address = \"kw1\" }}, {{ instance = 2, address = \"[::1]:7\" }}]\n{VALID}"
    );
    let config = parse(&text).unwrap();
    assert_eq!((config.instance, config.peers[1].instance), (Some(1), 2));
    assert_eq!(
        config.peers.iter().map(|it| it.address.to_string()).collect::<Vec<_>>(),
        ["kw1:6432", "[::1]:7"]
    );
    assert_eq!(parse(VALID).unwrap().instance, None);
    let two = "{ instance = 2, address = \"a\" }";
    assert!(with(&format!("peers = [{two}]"))[0].contains("`peers` without `instance`"));
    assert!(with(&format!("instance = 1\npeers = [{two}, {two}]"))[0].contains("instance 2 stands twice"));
    assert!(
        with("instance = 1\npeers = [{ instance = 2048, address = \"a\" }]")[0].contains("from 1 to 2047")
    );
    assert!(
        with("instance = 1\npeers = [{ instance = 2, address = \"a:0\" }]")[0].contains("address of a peer")
    );
    assert!(with("instance = 1\npeers = [2]")[0].contains("is no table"));
    assert!(with("instance = 2048")[0].contains("`instance` is 2048"));
}

#[test]
fn servers_have_names_that_are_looked_up_and_may_have_a_patroni() {
    let with = |entries: &str| VALID.replace("[\"db2\"]", &format!("[{entries}]"));
    let of = |entries: &str| parse(&with(entries)).unwrap().databases[0].shards[1].patroni.clone();
    let at = |host: &str, port| Some(Address { host: host.into(), port });
    assert_eq!(of("'db2'"), [None]);
    assert_eq!(of("'db1', { address = 'db2', patroni = 'http://db2:8009' }"), [None, at("db2", 8009)]);
    assert_eq!(of("{ address = 'db2', patroni = 'http://[::1]/' }"), [at("::1", 8008)]);
    for wrong in ["https://db2:8008", "db2:8008", "http://db2:8008/primary", "http://"] {
        let found = problems(&with(&format!("{{ address = 'db2', patroni = '{wrong}' }}")));
        let want = format!("line 7: `patroni` is \"{wrong}\"");
        assert!(found.len() == 1 && found[0].starts_with(&want), "{found:?}");
    }
    let interval = |said: &str| {
        let text = format!("{VALID}[databases.shop]\n{said}\n");
        parse(&text).unwrap().databases[0].probe.dns_interval
    };
    assert_eq!(interval(""), Some(Duration::from_secs(15)));
    assert_eq!(interval("dns_interval = 'off'"), None);
}

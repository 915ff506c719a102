//! The router of a shop on two shards, for benches that route its statements.

use std::sync::Arc;

use keyway::config::Config;
use keyway::route::Router;
use keyway::sql::Parser;

const CONFIG: &str = r#"
listen = "127.0.0.1:6432"
[users.app]
auth = "trust"
[databases.shop.shards.s1]
servers = ["127.0.0.1:5432"]
[databases.shop.shards.s2]
servers = ["127.0.0.1:5433"]
[databases.shop.maps.by_user]
kind = "hash"
type = "bigint"
[databases.shop.tables.users]
map = "by_user"
key = "user_id"
[databases.shop.tables.orders]
map = "by_user"
key = "user_id"
"#;

pub fn router() -> Router {
    let config = match Config::parse(CONFIG, std::path::Path::new("."), &|_| None) {
        Ok(config) => config,
        Err(problems) => panic!("{problems:?}"),
    };
    Router::new(&config.databases[0], 1_000, Arc::new(Parser::new()))
}

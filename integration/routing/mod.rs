//! Statements on two shards: where each goes, what is refused, and that a refusal leaves nothing behind.

mod begun;
mod chained;
mod copies;
mod cursors;
mod ended;
mod everywhere;
mod hints;
mod homes;
mod one_phase;
mod prepared;
mod reads;
mod spread;
mod transactions;
mod unnamed;
mod writes;

use std::path::Path;
use std::sync::Arc;

use keyway::base::ShardId;
use keyway::config::Config;
use keyway::demo::shop;
use keyway::route::{KeySource, Router, SessionView};
use keyway::sql::Parser;
use libtest_mimic::Trial;
use tokio_postgres::Client;

use crate::harness::wire::Wire;
use crate::harness::{APP_PASSWORD, Fallible, Harness, KeywayProcess, Shared, ShopFixture, connect, rows};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    let topics = [
        begun::tests,
        chained::tests,
        copies::tests,
        cursors::tests,
        ended::tests,
        everywhere::tests,
        hints::tests,
        homes::tests,
        one_phase::tests,
        prepared::tests,
        reads::tests,
        spread::tests,
        transactions::tests,
        unnamed::tests,
        writes::tests,
    ];
    topics.iter().flat_map(|it| it(harness)).collect()
}

/// Reference tables that these tests have for themselves, one each.
const REFERENCES: [&str; 4] = ["ref_written", "ref_failing", "ref_read", "ref_moved"];

/// The shop's servers behind a Keyway of its own that knows `REFERENCES` too, and the shop's map.
pub struct Shards<'a> {
    pub shop: &'a ShopFixture,
    pub keyway: KeywayProcess,
    router: Router,
}

impl<'a> Shards<'a> {
    pub async fn start(harness: &'a Shared) -> Fallible<Shards<'a>> {
        Shards::start_with(harness, "").await
    }

    /// With more behind the configuration.
    pub async fn start_with(harness: &'a Shared, more: &str) -> Fallible<Shards<'a>> {
        Shards::start_edited(harness, |text| text + more).await
    }

    pub async fn start_edited(harness: &'a Shared, edit: impl Fn(String) -> String) -> Fallible<Shards<'a>> {
        let shop = harness.shop().await?;
        let text = |listen: &str, admin: &str| edit(config_text(shop, listen, admin));
        let keyway = harness.start_keyway(&text).await?;
        let config = Config::parse(&text("127.0.0.1:1", "127.0.0.1:2"), Path::new("."), &|_| None)
            .map_err(|it| format!("{it:?}"))?;
        let router = Router::new(&config.databases[0], 16, Arc::new(Parser::new()));
        Ok(Shards { shop, keyway, router })
    }

    pub fn url(&self) -> String {
        self.shop.shop.url(&self.keyway.listen().to_string())
    }

    pub async fn client(&self) -> Fallible<Client> {
        connect(&self.url()).await
    }

    pub async fn wire(&self) -> Fallible<Wire> {
        Wire::log_in(self.keyway.listen(), shop::USER, APP_PASSWORD, shop::DATABASE, &[]).await
    }

    /// Past Keyway, on the primary of shard `index`.
    pub async fn direct(&self, index: usize) -> Fallible<Client> {
        Ok(self.shop.shop.shards[index].primary.connect(shop::DATABASE).await?)
    }

    /// On each shard, past Keyway.
    pub async fn everywhere(&self, sql: &str) -> Fallible<Vec<Vec<String>>> {
        let mut found = Vec::new();
        for index in 0..self.shop.shop.shards.len() {
            found.push(rows(&self.direct(index).await?, sql).await?);
        }
        Ok(found)
    }

    /// The first user from `from` on whose rows belong to shard `index`.
    pub fn user_on(&self, index: usize, from: i64) -> i64 {
        (from..).find(|it| self.owner(*it) == index).expect("a hash map leaves no shard empty")
    }

    /// The shard of a user by the map alone.
    fn owner(&self, user_id: i64) -> usize {
        let text = format!("SELECT FROM users WHERE user_id = {user_id}");
        let planned = self.router.plan(&text);
        let keys = KeySource { text: &text, literals: &planned.literals, params: None };
        let decision = self.router.decide(&planned.plan, &keys, &SessionView::default()).unwrap();
        let [ShardId(shard)] = decision.shards[..] else { panic!("{decision:?}") };
        usize::from(shard)
    }
}

fn config_text(shop: &ShopFixture, listen: &str, admin: &str) -> String {
    // Several workers here; most other tests have the default, which is one on a small machine.
    let mut text =
        format!("workers = 2\nadmin_users = [\"{}\"]\n{}", shop::USER, shop.shop.config_text(listen, admin));
    for table in REFERENCES {
        text.push_str(&format!("\n[databases.{}.tables.{table}]\nreference = true\n", shop::DATABASE));
    }
    // An end that `events` does not have.
    text.push_str(&format!(
        "\n[databases.{0}.maps.by_day]\nkind = \"range\"\ntype = \"date\"\nranges = [\n\
         {{ from = \"2026-01-01\", to = \"2026-07-01\", shard = \"s1\" }},\n\
         {{ from = \"2026-07-01\", to = \"2027-01-01\", shard = \"s2\" }},\n]\n\
         [databases.{0}.tables.visits]\nmap = \"by_day\"\nkey = \"day\"\n\
         [databases.{0}.tables.tastings]\nmap = \"by_day\"\nkey = \"day\"\n",
        shop::DATABASE
    ));
    text
}

pub fn insert_user(user_id: i64, name: &str) -> String {
    format!("INSERT INTO users (user_id, name, email, country) VALUES ({user_id}, '{name}', 'e', 'NL')")
}

//! LISTEN on several shards: what code of each shard notifies is heard, once, and a shard that is gone leaves the
//! others as they are.

use std::sync::Arc;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;

use crate::harness::wire::{Message, Wire, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, OwnShard, Shared, rows, run, until,
};

const DATABASE: &str = "sharded";

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("listen::shards::code_of_each_shard_is_heard_once", each_shard_is_heard_once),
        harness.test("listen::shards::one_that_is_gone_is_told_when_it_is_back", one_that_is_gone),
        harness.test("listen::shards::the_first_must_be_there", the_first_must_be_there),
    ]
}

/// Two shards of a primary each, with triggers that notify.
struct Place {
    shards: [OwnShard; 2],
    keyway: KeywayProcess,
}

impl Place {
    async fn start(harness: &Shared, wait_timeout: &str) -> Fallible<Place> {
        let shards = [harness.fresh_shard(0).await?, harness.fresh_shard(0).await?];
        for it in &shards {
            let primary = &it.shard.primary;
            primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
            run(
                &primary.connect(DATABASE).await?,
                "CREATE TABLE items (id bigint PRIMARY KEY, what text);
                 CREATE TABLE kinds (kind text PRIMARY KEY);
                 CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN PERFORM pg_notify('changes', to_json(NEW)::text); RETURN NEW; END $$;
                 CREATE TRIGGER told AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION told();
                 CREATE TRIGGER told AFTER INSERT ON kinds FOR EACH ROW EXECUTE FUNCTION told();
                 GRANT ALL ON items, kinds TO PUBLIC",
            )
            .await?;
        }
        let addresses = [0, 1].map(|it: usize| shards[it].shard.primary.address());
        let config = |listen: &str, admin: &str| {
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n\
                 [databases.{DATABASE}]\nprobe_interval = \"100ms\"\ncross_shard_writes = \"one_phase\"\n\
                 [databases.{DATABASE}.pool]\nsize = 1\nwait_timeout = \"{wait_timeout}\"\n\
                 [databases.{DATABASE}.shards.s1]\nservers = [\"{}\"]\n\
                 [databases.{DATABASE}.shards.s2]\nservers = [\"{}\"]\n\
                 [databases.{DATABASE}.maps.by_id]\nkind = \"range\"\ntype = \"bigint\"\nranges = [\n\
                 {{ to = 100, shard = \"s1\" }},\n{{ from = 100, shard = \"s2\" }},\n]\n\
                 [databases.{DATABASE}.tables.items]\nmap = \"by_id\"\nkey = \"id\"\n\
                 [databases.{DATABASE}.tables.kinds]\nreference = true\n",
                addresses[0], addresses[1]
            )
        };
        let keyway = harness.start_keyway(config).await?;
        Ok(Place { shards, keyway })
    }

    async fn client(&self) -> Fallible<Wire> {
        Wire::log_in(self.keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await
    }

    /// Connections that listen on a shard.
    async fn listeners(&self, shard: usize) -> Fallible<Vec<String>> {
        let direct = self.shards[shard].shard.primary.connect(DATABASE).await?;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keyway listener' \
                   AND query LIKE 'LISTEN%'";
        rows(&direct, sql).await
    }
}

fn payload(message: &Message) -> String {
    let mut texts = message.body[4..].split(|it| *it == 0).map(String::from_utf8_lossy);
    texts.nth(1).unwrap_or_default().into_owned()
}

async fn next(wire: &mut Wire) -> Fallible<String> {
    Ok(wire.until('A').await?.last().map(payload).ok_or("no notification")?)
}

async fn each_shard_is_heard_once(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "30s").await?;
    let (mut hearing, mut other) = (place.client().await?, place.client().await?);
    hearing.rows("LISTEN changes").await?;
    assert_eq!([place.listeners(0).await?, place.listeners(1).await?], [["1"], ["1"]]);
    for (id, sql) in [
        (1, "INSERT INTO items (id, what) VALUES (1, 'a')"),
        (101, "INSERT INTO items (id, what) VALUES (101, 'a')"),
    ] {
        other.rows(sql).await?;
        assert_eq!(next(&mut hearing).await?, format!("{{\"id\":{id},\"what\":\"a\"}}"));
    }
    // Rows of both in one statement, and copies of one row.
    other.rows("UPDATE items SET what = 'b'").await?;
    let mut both = [next(&mut hearing).await?, next(&mut hearing).await?];
    both.sort();
    assert_eq!(both, ["{\"id\":1,\"what\":\"b\"}", "{\"id\":101,\"what\":\"b\"}"]);
    for kind in ["one", "two", "three"] {
        other.rows(&format!("INSERT INTO kinds (kind) VALUES ('{kind}')")).await?;
        // Of the server that wrote a copy before it is told all the same, and NOTIFY is by the first shard alone.
        other.rows("UPDATE items SET what = 'c' WHERE id = 101").await?;
        other.rows(&format!("NOTIFY changes, 'end of {kind}'")).await?;
        let told = [next(&mut hearing).await?, next(&mut hearing).await?, next(&mut hearing).await?];
        let want = [format!("{{\"kind\":\"{kind}\"}}"), "{\"id\":101,\"what\":\"c\"}".to_owned()];
        assert!(want.iter().all(|it| told.contains(it)), "{told:?}");
        assert!(told.contains(&format!("end of {kind}")), "{told:?}");
    }
    // What it writes itself on several shards is in its own answer, before ReadyForQuery.
    let answer = hearing.ask(&query("UPDATE items SET what = 'own'"), 1).await?;
    let own: Vec<_> = answer.iter().filter(|it| it.tag == 'A').map(payload).collect();
    assert_eq!(own.len(), 2, "{answer:?}");
    hearing.rows("UNLISTEN *").await?;
    other.rows("UPDATE items SET what = 'unheard'").await?;
    let left = hearing.ask(&query("SELECT 1"), 1).await?;
    assert!(!left.iter().any(|it| it.tag == 'A'), "{left:?}");
    Ok(())
}

async fn one_that_is_gone(harness: Arc<Shared>) -> Outcome {
    let mut place = Place::start(&harness, "30s").await?;
    let (mut hearing, mut other) = (place.client().await?, place.client().await?);
    hearing.rows("LISTEN changes").await?;
    place.shards[1].shard.primary.kill().await?;
    let lost = "keyway_listener_losses_total{database=\"sharded\"} 1";
    until("the loss is seen", async || Ok(place.keyway.metrics().await?.contains(lost))).await?;
    // The other shard's go on, and another client may listen meanwhile.
    other.rows("INSERT INTO items (id, what) VALUES (2, 'a')").await?;
    assert_eq!(next(&mut hearing).await?, "{\"id\":2,\"what\":\"a\"}");
    let mut late = place.client().await?;
    late.rows("LISTEN changes").await?;
    place.shards[1].shard.primary.start().await?;
    for wire in [&mut hearing, &mut late] {
        let told = wire.until('N').await?;
        let notice = told.last().ok_or("nothing")?;
        assert_eq!(notice.field('C').as_deref(), Some("01000"), "{notice:?}");
        assert!(notice.field('M').is_some_and(|it| it.contains("may have been missed")), "{notice:?}");
    }
    until("the shard is written again", || async {
        let mut other = place.client().await?;
        Ok(other
            .rows("INSERT INTO items (id, what) VALUES (102, 'a') ON CONFLICT (id) DO NOTHING")
            .await
            .is_ok())
    })
    .await?;
    for wire in [&mut hearing, &mut late] {
        assert_eq!(next(wire).await?, "{\"id\":102,\"what\":\"a\"}");
    }
    Ok(())
}

/// NOTIFY goes there.
async fn the_first_must_be_there(harness: Arc<Shared>) -> Outcome {
    let mut place = Place::start(&harness, "500ms").await?;
    let mut wire = place.client().await?;
    wire.rows("SELECT 1").await?;
    place.shards[0].shard.primary.kill().await?;
    assert!(wire.error("LISTEN changes").await?.starts_with("57P03 cannot listen"));
    place.shards[0].shard.primary.start().await?;
    until("it can be listened to", || async {
        Ok(place.client().await?.rows("LISTEN changes").await.is_ok())
    })
    .await?;
    wire.rows("LISTEN changes").await?;
    let answer = wire.ask(&query("NOTIFY changes, 'heard'"), 1).await?;
    let heard: Vec<_> = answer.iter().filter(|it| it.tag == 'A').map(payload).collect();
    assert_eq!(heard, ["heard"]);
    Ok(())
}

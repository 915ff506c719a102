//! How often Keyway waits for a server, counted on the way to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::wire::{Message, Wire, bind, describe, execute, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("round_trips::settings_cost_none", settings_cost_none),
        harness.test("round_trips::a_transaction_costs_one_for_each_statement", a_transaction_costs_no_more),
    ]
}

/// A way to a server. A round trip begins where its client speaks behind the server's words.
struct Way {
    address: SocketAddr,
    trips: Arc<AtomicU64>,
}

impl Way {
    async fn to(server: SocketAddr) -> Fallible<Way> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let trips = Arc::new(AtomicU64::new(0));
        let counted = trips.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { return };
                // A delay of the kernel's would be none of Keyway's.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let spoke = Arc::new(AtomicBool::new(true));
                tokio::spawn(there(from_client, to_server, spoke.clone(), counted.clone()));
                tokio::spawn(back(from_server, to_client, spoke));
            }
        });
        Ok(Way { address, trips })
    }

    fn trips(&self) -> u64 {
        self.trips.load(Ordering::SeqCst)
    }
}

async fn there(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    spoke: Arc<AtomicBool>,
    trips: Arc<AtomicU64>,
) {
    let (mut buffer, mut is_first, mut own) = (vec![0; 65_536], true, false);
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        // What Keyway asks for itself has its name in the startup packet.
        own |= std::mem::take(&mut is_first) && buffer[..count].windows(7).any(|it| it == b"keyway ");
        if spoke.swap(false, Ordering::SeqCst) && !own {
            trips.fetch_add(1, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn back(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, spoke: Arc<AtomicBool>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        spoke.store(true, Ordering::SeqCst);
        if client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Keyway with one connection to the primary, and the way to it: in clear text, or nobody could tell whose it is.
async fn counted(harness: &Shared) -> Fallible<(crate::harness::KeywayProcess, Way)> {
    let way = Way::to(harness.single().await?.shard.primary.address().parse()?).await?;
    let server = way.address;
    let keyway = harness
        .start_keyway(|listen, admin| {
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n\
                 [databases.{DATABASE}]\nservers = [\"{server}\"]\nserver_tls = \"disable\"\n\
                 [databases.{DATABASE}.pool]\nsize = 1\n"
            )
        })
        .await?;
    // Until then servers are searched for what functions may have left there.
    keyway.until_catalog_is_known(DATABASE).await?;
    Ok((keyway, way))
}

/// The first value of the only row, as text.
fn value(answer: &[Message]) -> Fallible<String> {
    let row = answer.iter().find(|it| it.tag == 'D').ok_or_else(|| format!("no row: {answer:?}"))?;
    Ok(String::from_utf8_lossy(row.body.get(6..).unwrap_or_default()).into_owned())
}

async fn settings_cost_none(harness: Arc<Shared>) -> Outcome {
    let (keyway, way) = counted(&harness).await?;
    let mut clients = Vec::new();
    for name in ["one", "two"] {
        let startup = [("application_name", name)];
        let mut wire = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &startup).await?;
        if name == "two" {
            wire.rows("SET work_mem = '5MB'").await?;
        }
        wire.ask(&[parse("p", "SELECT current_setting('application_name')"), sync()].concat(), 1).await?;
        wire.ask(&[bind("", "p", &[], false), execute("", 0), sync()].concat(), 1).await?;
        clients.push((name, wire));
    }
    let asked = "SELECT current_setting('application_name')";
    let described = [bind("", "", &[], false), describe('P', ""), execute("", 0), sync()].concat();
    for (way_to_ask, bytes) in [
        ("simple", query(asked)),
        ("extended", [parse("", asked), described].concat()),
        ("prepared", [bind("", "p", &[], false), execute("", 0), sync()].concat()),
    ] {
        for turn in 0..10 {
            for (name, wire) in &mut clients {
                let before = way.trips();
                assert_eq!(value(&wire.ask(&bytes, 1).await?)?, *name, "{way_to_ask}, turn {turn}");
                assert_eq!(way.trips() - before, 1, "{way_to_ask}, turn {turn}");
            }
        }
    }
    // The same client again has nothing to set.
    let before = way.trips();
    for _ in 0..5 {
        clients[0].1.rows("SELECT 1").await?;
    }
    assert_eq!(way.trips() - before, 5);
    Ok(())
}

async fn a_transaction_costs_no_more(harness: Arc<Shared>) -> Outcome {
    let (keyway, way) = counted(&harness).await?;
    let mut clients = Vec::new();
    for name in ["one", "two"] {
        let startup = [("application_name", name)];
        clients.push(Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &startup).await?);
    }
    for wire in &mut clients {
        wire.rows("SELECT 1").await?;
    }
    for wire in &mut clients {
        let before = way.trips();
        // BEGIN and the settings go along with the first statement.
        for sql in ["BEGIN", "SELECT 1", "SELECT 2", "COMMIT"] {
            wire.ask(&query(sql), 1).await?;
        }
        assert_eq!(way.trips() - before, 3);
    }
    Ok(())
}

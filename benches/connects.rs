//! Clients that connect, log in with SCRAM-SHA-256, ask once and leave, over and over, for as long as they are told to.
//!
//!     cargo run --release --example connects -- 127.0.0.1:6432 bench bench secret 16 5 'SELECT 1'
//!
//! That is: address, database, user, password, clients, seconds, statement. Prints how many connections were made in how many
//! seconds. `pgbench -C` derives the keys of its password anew for each of them, milliseconds which hide what a proxy takes; here they
//! are derived once for each salt. A proxy that makes another salt for each login, as PgBouncer did before 1.25 for passwords in clear text, has
//! the client derive them each time.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::auth::{Credentials, Derivation, NONCE_BYTES, ServerChannel, ServerLogin};
use keyway::config::{Secret, ServerAuth};
use keyway::wire::{self, BackendTag};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Load {
    address: String,
    database: String,
    user: String,
    credentials: Credentials,
    statement: String,
    until: Instant,
}

/// One connection, and what has come over it and was not taken yet.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    out: Vec<u8>,
}

impl Connection {
    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Tag and bytes of the next message.
    async fn message(&mut self) -> Result<(u8, Vec<u8>), Box<dyn Error>> {
        loop {
            if let Some(head) = wire::header(&self.received)?
                && head.total <= self.received.len()
            {
                return Ok((head.tag, self.received.drain(..head.total).collect()));
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn until(&mut self, tag: BackendTag) -> Result<(), Box<dyn Error>> {
        loop {
            let (came, message) = self.message().await?;
            if came == BackendTag::ERROR.0 {
                return Err(String::from_utf8_lossy(wire::error_fields(&message)?.message).into());
            }
            if came == tag.0 {
                return Ok(());
            }
        }
    }
}

async fn connect_once(load: &Load, nonce: [u8; NONCE_BYTES]) -> Result<(), Box<dyn Error>> {
    let stream = TcpStream::connect(&load.address).await?;
    stream.set_nodelay(true)?;
    let mut connection = Connection { stream, received: Vec::new(), out: Vec::new() };
    wire::startup_message(&mut connection.out, 0, &load.user, &load.database, &[]);
    connection.send().await?;
    let mut login = ServerLogin::new(
        &load.user,
        &load.credentials,
        ServerAuth::default(),
        ServerChannel::default(),
        nonce,
    );
    loop {
        let (tag, message) = connection.message().await?;
        if tag != BackendTag::AUTHENTICATION.0 {
            return Err("an answer other than an Authentication message".into());
        }
        if login.answer(&message, &mut connection.out).await? {
            break;
        }
        connection.send().await?;
    }
    connection.until(BackendTag::READY_FOR_QUERY).await?;
    wire::query(&mut connection.out, &load.statement);
    connection.send().await?;
    connection.until(BackendTag::READY_FOR_QUERY).await?;
    wire::terminate(&mut connection.out);
    connection.send().await?;
    Ok(())
}

/// One client, until the time is up: how often it connected.
async fn client(load: Arc<Load>) -> Result<u64, Box<dyn Error>> {
    let (mut connects, mut nonce) = (0, [0; NONCE_BYTES]);
    while Instant::now() < load.until {
        getrandom::fill(&mut nonce)?;
        connect_once(&load, nonce).await?;
        connects += 1;
    }
    Ok(connects)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, database, user, password, clients, seconds, statement] = &arguments[..] else {
        return Err("connects ADDRESS DATABASE USER PASSWORD CLIENTS SECONDS STATEMENT".into());
    };
    // The salt is of a verifier that nobody asks for.
    let credentials = Credentials::new(Secret::parse(password), [0; 16], Derivation::new(1));
    let begun = Instant::now();
    let load = Arc::new(Load {
        address: address.clone(),
        database: database.clone(),
        user: user.clone(),
        credentials,
        statement: statement.clone(),
        until: begun + Duration::from_secs(seconds.parse()?),
    });
    let all = futures_util::future::try_join_all((0..clients.parse()?).map(|_| client(load.clone())));
    let connects: u64 = all.await?.into_iter().sum();
    println!("{connects} connections in {:.3} s", begun.elapsed().as_secs_f64());
    Ok(())
}

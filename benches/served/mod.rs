//! A client, a Keyway and a PostgreSQL of their own: all but the last in one thread, so that what a statement costs can be
//! counted there, from socket to socket. Asking allocates nothing of its own.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::app::Proxy;
use keyway::config::Config;
use keyway::demo::postgres::{Installation, Options, Server, WorkDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

pub type Fallible<T> = Result<T, Box<dyn Error>>;

const USER: &str = "app";
const PASSWORD: &str = "app";
const ROWS: u32 = 1_000;
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Dropped in this order: clients and Keyway before the server, its directory last.
pub struct Served {
    client: TcpStream,
    answer: Vec<u8>,
    _proxy: Proxy,
    _server: Server,
    _dir: WorkDir,
    runtime: Runtime,
}

/// `single` has one server, `sharded` two shards with their tables keyed by `aid`, which are one server.
fn config(listen: &str, admin: &str, port: u16) -> String {
    format!(
        r#"
listen = "{listen}"
admin = "{admin}"
[users.{USER}]
auth = "trust"
password = "{PASSWORD}"
[databases.single]
dbname = "bench"
servers = ["127.0.0.1:{port}"]
[databases.sharded]
dbname = "bench"
[databases.sharded.shards.s1]
servers = ["127.0.0.1:{port}"]
[databases.sharded.shards.s2]
servers = ["127.0.0.2:{port}"]
[databases.sharded.maps.by_aid]
kind = "hash"
type = "integer"
[databases.sharded.tables.accounts]
map = "by_aid"
key = "aid"
"#
    )
}

impl Served {
    /// With a client of `database`, and its catalog known: before that servers are searched for what statements leave.
    pub fn start(database: &str) -> Fallible<Served> {
        let runtime = keyway::app::runtime(1)?;
        let installation = Arc::new(Installation::find()?);
        let dir = WorkDir::temporary(&installation)?;
        let (client, proxy, server) = runtime.block_on(async {
            let settings = vec![("listen_addresses".to_owned(), "127.0.0.1,127.0.0.2".to_owned())];
            let options = Options { password: "admin".into(), fsync: false, settings, template: None };
            let server = Server::primary(&installation, dir.path(), "primary", &options).await?;
            server.create_database("bench", USER, PASSWORD).await?;
            let rows = format!(
                "SET ROLE {USER}; CREATE TABLE accounts (aid integer PRIMARY KEY, abalance integer, filler text);
                 INSERT INTO accounts SELECT aid, 0, repeat(' ', 84) FROM generate_series(1, {ROWS}) aid;"
            );
            server.connect("bench").await?.batch_execute(&rows).await?;
            let text = config("127.0.0.1:0", "127.0.0.1:0", server.port());
            let config = Config::parse(&text, dir.path(), &|_| None).map_err(|it| format!("{it:?}"))?;
            let proxy = Proxy::start(&config, None)?;
            until_known(proxy.admin_addr(), database).await?;
            let client = log_in(proxy.listen_addr(), database).await?;
            Ok::<_, Box<dyn Error>>((client, proxy, server))
        })?;
        Ok(Served { client, answer: vec![0; 1 << 20], _proxy: proxy, _server: server, _dir: dir, runtime })
    }

    /// Sends one request and reads to its ReadyForQuery. An error fails.
    pub fn ask(&mut self, request: &[u8]) -> Fallible<&[u8]> {
        let (client, answer) = (&mut self.client, &mut self.answer);
        let length = self.runtime.block_on(async {
            client.write_all(request).await?;
            let mut length = 0;
            while !is_whole(&answer[..length]) {
                let count = client.read(&mut answer[length..]).await?;
                if count == 0 {
                    return Err("the connection was closed".to_owned().into());
                }
                length += count;
            }
            Ok::<_, Box<dyn Error>>(length)
        })?;
        let answer = &self.answer[..length];
        if messages(answer).any(|it| it[0] == b'E') {
            return Err(String::from_utf8_lossy(answer).into_owned().into());
        }
        Ok(answer)
    }
}

fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let head = keyway::wire::header(rest).ok()??;
        let (message, after) = rest.split_at_checked(head.total)?;
        rest = after;
        Some(message)
    })
}

/// Up to a ReadyForQuery.
fn is_whole(answer: &[u8]) -> bool {
    messages(answer).last().is_some_and(|it| it[0] == b'Z')
        && messages(answer).map(<[u8]>::len).sum::<usize>() == answer.len()
}

async fn log_in(address: SocketAddr, database: &str) -> Fallible<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut out = Vec::new();
    keyway::wire::startup_message(&mut out, 0, USER, database, &[]);
    stream.write_all(&out).await?;
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(String::from_utf8_lossy(&answer).into_owned().into());
        }
    }
    Ok(stream)
}

async fn until_known(admin: SocketAddr, database: &str) -> Fallible<()> {
    let (started, known) = (Instant::now(), format!("keyway_catalog_known{{database=\"{database}\"}} 1"));
    loop {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: keyway\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        if String::from_utf8_lossy(&answer).lines().any(|it| it == known) {
            return Ok(());
        }
        if started.elapsed() > READY_TIMEOUT {
            return Err("the catalog is not known".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a client sends.
pub mod request {
    fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
        out.push(tag);
        out.extend((body.len() as u32 + 4).to_be_bytes());
        out.extend(body);
    }

    pub fn simple(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        keyway::wire::query(&mut out, text);
        out
    }

    pub fn parse(name: &str, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        keyway::wire::parse_named(&mut out, name.as_bytes(), text.as_bytes(), &[]);
        out
    }

    pub fn sync() -> Vec<u8> {
        keyway::wire::SYNC.to_vec()
    }

    /// Bind with one value in text form, Describe of the portal, Execute and Sync, as libpq sends them.
    pub fn run(name: &str, value: &str) -> Vec<u8> {
        let mut bind = format!("\0{name}\0").into_bytes();
        bind.extend([0, 0, 0, 1]);
        bind.extend((value.len() as u32).to_be_bytes());
        bind.extend(value.as_bytes());
        bind.extend([0, 1, 0, 0]);
        let mut out = Vec::new();
        message(&mut out, b'B', &bind);
        message(&mut out, b'D', b"P\0");
        message(&mut out, b'E', b"\0\0\0\0\0");
        out.extend(sync());
        out
    }
}

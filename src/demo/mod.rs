//! `keyway demo`: PostgreSQL servers, a shop on them, and load, on one machine, for a first look.

mod load;
pub mod postgres;
pub mod shop;
mod tour;

pub use load::Load;

use std::future::Future;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::NoTls;

use crate::config::Config;
use load::Generator;
use postgres::{Installation, Options, PostgresError, Server, WorkDir, free_port};
use shop::{Shop, ShopOptions};

#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Shards of the sample shop
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub shards: u8,
    /// Shards more that own no row yet: room for what is hot [default: 1 with --load hot, else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=4))]
    pub spare: Option<u8>,
    /// Streaming replicas of each shard's primary
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=4))]
    pub replicas: u8,
    /// Port for clients on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 6432)]
    pub port: u16,
    /// Port for dashboard and metrics on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 9432)]
    pub admin_port: u16,
    /// What runs beside you
    #[arg(long, value_enum, default_value_t = Load::Hot)]
    pub load: Load,
    /// Put data, logs and configuration in DIR, and leave them there
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// When ready, print one line of JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Run the suggested psql lines, say how each was routed, and end: 0 when all held
    #[arg(long)]
    pub once: bool,
}

impl DemoArgs {
    fn spares(&self) -> u8 {
        self.spare.unwrap_or(u8::from(self.load == Load::Hot))
    }
}

/// A proxy that runs.
pub struct Running {
    pub listen_addr: SocketAddr,
    pub admin_addr: SocketAddr,
    /// Awaited, it ends the proxy.
    pub shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
}

#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("port {0} cannot be had ({1}): give another with --{2} PORT, or --{2} 0 for a free one")]
    Port(u16, io::Error, &'static str),
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("no randomness to be had: {0}")]
    Randomness(getrandom::Error),
    #[error("the demo's configuration does not load: {0}")]
    Config(String),
    #[error("{0}")]
    Proxy(String),
    #[error("the shop cannot be filled through keyway: {}", postgres::reason(.0))]
    Shop(#[from] tokio_postgres::Error),
    #[error("not as routed:\n{0}")]
    Tour(String),
    #[error("ended before all lines had run")]
    Interrupted,
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// Runs the demo until `stop` ends, or once. `start_proxy` starts Keyway inside this runtime; the path is
/// for its reloads.
///
/// Call it from the thread that lives as long as the process: servers end with the thread that started them.
pub async fn run(
    args: DemoArgs,
    start_proxy: impl FnOnce(&Config, &Path) -> Result<Running, String>,
    stop: impl Future<Output = io::Result<()>>,
) -> ExitCode {
    match demo(&args, start_proxy, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyway demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(
    args: &DemoArgs,
    start_proxy: impl FnOnce(&Config, &Path) -> Result<Running, String>,
    stop: impl Future<Output = io::Result<()>>,
) -> Result<(), DemoError> {
    let mut stop = std::pin::pin!(async {
        tokio::select! { it = stop => it, it = hung_up() => it }
    });
    // Dropped half way, a stage takes its servers and its directory with it.
    let stage = tokio::select! {
        it = Stage::set(args, start_proxy) => it?,
        it = &mut stop => return told_to_stop(args, it),
    };
    let load = Generator::start(&stage.url, args.load);
    let ended = tokio::select! {
        it = stage.show(args) => it,
        it = &mut stop => told_to_stop(args, it),
    };
    drop(load);
    stage.strike().await;
    ended
}

/// The terminal was closed.
async fn hung_up() -> io::Result<()> {
    signal(SignalKind::hangup())?.recv().await;
    Ok(())
}

/// Right for a demo that runs until then; with --once something is left undone.
fn told_to_stop(args: &DemoArgs, waited: io::Result<()>) -> Result<(), DemoError> {
    waited.map_err(DemoError::Signals)?;
    if args.once { Err(DemoError::Interrupted) } else { Ok(()) }
}

/// All that runs. Fields are dropped in this order: servers before the directory that they live in.
struct Stage {
    proxy: Running,
    url: String,
    config_path: PathBuf,
    tour: Vec<tour::Stop>,
    shop: Shop,
    installation: Arc<Installation>,
    dir: WorkDir,
}

impl Stage {
    async fn set(
        args: &DemoArgs,
        start_proxy: impl FnOnce(&Config, &Path) -> Result<Running, String>,
    ) -> Result<Stage, DemoError> {
        let installation = Arc::new(Installation::find()?);
        if args.once {
            installation.client_program("psql")?;
        }
        // Before the work of minutes, not after it.
        let listen = address(args.port, "port", &[])?;
        let admin = address(args.admin_port, "admin-port", &[listen.port()])?;
        let dir = match &args.keep {
            Some(path) => WorkDir::kept(&installation, path)?,
            None => WorkDir::temporary(&installation)?,
        };
        note(&format!("starting {} in {}", servers_told(args), dir.path().display()));
        let postgres =
            Options { password: password()?, fsync: dir.is_kept(), settings: Vec::new(), template: None };
        let (shards, spares, replicas) = (args.shards.into(), args.spares().into(), args.replicas.into());
        let options = ShopOptions { shards, spares, replicas, postgres };
        let shop = Shop::start(&installation, dir.path(), &options).await?;
        let config_path = dir.path().join("keyway.toml");
        // Whoever looks around may use the console.
        let text = format!("admin_users = [\"{}\"]\n", shop::USER)
            + &shop.config_text(&listen.to_string(), &admin.to_string());
        write_private(&config_path, &text).map_err(|error| DemoError::File(config_path.clone(), error))?;
        let config = Config::load(&config_path).map_err(|problems| {
            DemoError::Config(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let tour = tour::plan(&config).map_err(DemoError::Config)?;
        let proxy = start_proxy(&config, &config_path).map_err(DemoError::Proxy)?;
        note("filling the shop through keyway");
        let url = shop.url(&proxy.listen_addr.to_string());
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        shop::create_schema(&client).await?;
        shop::fill(&client).await?;
        shop.wait_until_replayed().await?;
        Ok(Stage { proxy, url, config_path, tour, shop, installation, dir })
    }

    /// Says what there is; then takes the tour, or waits for ever.
    async fn show(&self, args: &DemoArgs) -> Result<(), DemoError> {
        let mut out = io::stdout();
        let said = if args.json { format!("{}\n", self.json()) } else { self.text(args) };
        // Whoever started us may have gone; the demo runs on until it is told to stop.
        let _ = out.write_all(said.as_bytes()).and_then(|()| out.flush());
        if !args.once {
            return std::future::pending().await;
        }
        let psql = self.installation.client_program("psql")?;
        // With --json standard output is the one line alone.
        let toured = if args.json {
            tour::run(&psql, &self.url, &self.shop, &self.tour, &mut io::stderr()).await
        } else {
            tour::run(&psql, &self.url, &self.shop, &self.tour, &mut out).await
        };
        toured.map_err(DemoError::Tour)
    }

    /// Ends everything in order: Keyway first, so that no client sees a server go.
    async fn strike(mut self) {
        note("stopping");
        self.proxy.shutdown.await;
        // Someone may have killed a server to see what happens; dropping ends what is left.
        if let Err(error) = self.shop.stop().await {
            tracing::debug!(%error, "a server did not stop in order");
        }
        if self.dir.is_kept() {
            note(&format!("data, logs and keyway.toml stay in {}", self.dir.path().display()));
        }
    }

    fn text(&self, args: &DemoArgs) -> String {
        let (url, admin) = (&self.url, self.proxy.admin_addr);
        let load = match args.load {
            Load::None => "none".to_owned(),
            Load::Even => format!("{} statements/s", load::STATEMENTS_PER_S),
            Load::Hot => {
                format!(
                    "{} statements/s, a third of them for user {}",
                    load::STATEMENTS_PER_S,
                    shop::HOT_USER
                )
            }
        };
        let mut text = format!(
            "\n{}, one connection string\n\n  connect    {url}\n  dashboard  http://{admin}/\n  \
             metrics    http://{admin}/metrics\n  config     {}\n  load       {load}\n\n",
            servers_told(args),
            self.config_path.display()
        );
        if !args.once {
            text.push_str("Try:\n");
            for line in &tour::LINES {
                text.push_str(&format!("  # {}\n  psql '{url}' -c \"{}\"\n", line.about, line.sql));
            }
            text.push_str("\nCtrl-C ends it.\n");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let server = |it: &Server, role: &str| {
            serde_json::json!({
                "name": it.name(), "host": it.host(), "port": it.port(), "role": role,
                "pid": it.pid(), "data_dir": it.data_dir(),
            })
        };
        let shards = self.shop.shards.iter().map(|shard| {
            let primary = std::iter::once(server(&shard.primary, "primary"));
            let servers: Vec<_> =
                primary.chain(shard.replicas.iter().map(|it| server(it, "replica"))).collect();
            serde_json::json!({ "name": shard.name, "servers": servers })
        });
        serde_json::json!({
            "url": self.url,
            "admin": format!("http://{}/", self.proxy.admin_addr),
            "config": self.config_path,
            "shards": shards.collect::<Vec<_>>(),
        })
    }
}

/// Progress goes to standard error: standard output is for what was asked for.
fn note(text: &str) {
    eprintln!("keyway demo: {text}");
}

fn servers_told(args: &DemoArgs) -> String {
    let plural =
        |count: u8, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let each = if args.shards == 1 { "" } else { "each " };
    let shards = plural(args.shards, "shard");
    let told = match args.replicas {
        0 => format!("{shards}, {each}a primary alone"),
        replicas => format!("{shards}, {each}a primary and {}", plural(replicas, "replica")),
    };
    match args.spares() {
        0 => told,
        1 => format!("{told}; 1 shard more that owns nothing yet"),
        spares => format!("{told}; {spares} shards more that own nothing yet"),
    }
}

fn address(port: u16, argument: &'static str, taken: &[u16]) -> Result<SocketAddr, DemoError> {
    let port = if port == 0 { free_port(taken)? } else { port };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).map_err(|error| DemoError::Port(port, error, argument))?;
    Ok(address)
}

/// The servers listen on the loopback interface, where every user of the machine may knock.
fn password() -> Result<String, DemoError> {
    let entropy = getrandom::u64().map_err(DemoError::Randomness)?;
    Ok(format!("{entropy:016x}"))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

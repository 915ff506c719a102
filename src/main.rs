//! The command line. It decides nothing: `app` runs, `config` checks, `route` explains.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyway::app::{Drain, Proxy, Signals};
use keyway::config::{Config, LogFormat};
use keyway::demo::{self, DemoArgs, Running};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "A shard-aware PostgreSQL routing proxy")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or Ctrl-C; SIGHUP reads the file anew
    Run {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say everything that is wrong with a configuration
    Check {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say where a statement would go, and why, without a database
    Route {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The database, where the configuration has several
        #[arg(long)]
        database: Option<String>,
        sql: String,
        /// Values of $1, $2, ... as text
        params: Vec<String>,
    },
    /// Start PostgreSQL shards with replicas, a sample shop and keyway, for a first look
    Demo(DemoArgs),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => with_config(&config, |it| run(&it, &config)),
        Command::Check { config } => with_config(&config, |it| {
            println!(
                "{}: {} databases, {} users, no problem",
                config.display(),
                it.databases.len(),
                it.users.len()
            );
            ExitCode::SUCCESS
        }),
        Command::Route { config, database, sql, params } => {
            with_config(&config, |it| keyway::app::route(&it, database.as_deref(), &sql, &params))
        }
        Command::Demo(args) => run_demo(args),
    }
}

fn with_config(path: &std::path::Path, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(path) {
        Ok(config) => then(config),
        Err(problems) => {
            for problem in &problems {
                eprintln!("{}: {problem}", path.display());
            }
            eprintln!("{}: {} problems", path.display(), problems.len());
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, path: &std::path::Path) -> ExitCode {
    keyway::app::init_logging("info", config.log.format);
    keyway::app::forbid_huge_pages();
    let runtime = match keyway::app::runtime(config.workers) {
        Ok(it) => it,
        Err(error) => {
            eprintln!("keyway: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        // From here on no signal ends the process by itself.
        let signals = Signals::new().map_err(|it| it.to_string())?;
        let proxy = Proxy::start(config, Some(path)).map_err(|it| it.to_string())?;
        tracing::info!(listen = %proxy.listen_addr(), admin = %proxy.admin_addr(), "serving");
        keyway::app::serve(proxy, signals).await;
        Ok::<_, String>(())
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_demo(args: DemoArgs) -> ExitCode {
    // What is normal here, the tour tells.
    keyway::app::init_logging("warn", LogFormat::Text);
    // Servers that end are waited for on the demo's own thread: what serves clients is on others.
    let runtime = match keyway::app::runtime(2) {
        Ok(it) => it,
        Err(error) => {
            eprintln!("keyway: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let start = |config: &Config, path: &Path| {
        let proxy = Proxy::start(config, Some(path)).map_err(|it| it.to_string())?;
        let (listen_addr, admin_addr) = (proxy.listen_addr(), proxy.admin_addr());
        Ok(Running { listen_addr, admin_addr, shutdown: Box::pin(proxy.shutdown(Drain::Timeout)) })
    };
    runtime.block_on(demo::run(args, start, keyway::app::stop_signal()))
}

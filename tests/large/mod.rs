//! A Keyway of many shards and tables whose servers do not answer: its metrics have all series that a busy one's have.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use keyway::app::Proxy;
use keyway::config::Config;
use tokio::runtime::Runtime;

pub const SHARDS: usize = 64;
const TABLES: usize = 200;

pub struct Large {
    proxy: Proxy,
    _runtime: Runtime,
}

impl Large {
    pub fn start() -> Large {
        let config =
            Config::parse(&config(), Path::new(""), &|_| None).unwrap_or_else(|it| panic!("{it:#?}"));
        let runtime = Runtime::new().expect("a runtime");
        let entered = runtime.enter();
        let proxy = Proxy::start(&config, None).expect("a proxy");
        drop(entered);
        Large { proxy, _runtime: runtime }
    }

    /// The body of `/metrics`, over HTTP.
    pub fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.proxy.admin_addr()).expect("the admin address");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        body.to_owned()
    }
}

fn config() -> String {
    let mut text =
        "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\n[users.app]\npassword = 'secret'\n".to_owned();
    // Nobody is at the discard port of these.
    for shard in 0..SHARDS {
        let servers = format!("['127.10.1.{0}:9', '127.10.2.{0}:9']", shard + 1);
        text.push_str(&format!("[databases.shop.shards.shard{shard:02}]\nservers = {servers}\n"));
    }
    let slots = 4_096 / SHARDS;
    let assign = (0..SHARDS)
        .map(|it| format!("{{ slots = '{}-{}', shard = 'shard{it:02}' }}", it * slots, (it + 1) * slots - 1));
    let assign = assign.collect::<Vec<_>>().join(", ");
    text.push_str(&format!(
        "[databases.shop.maps.by_user]\nkind = 'hash'\ntype = 'bigint'\nassign = [{assign}]\n"
    ));
    for table in 0..TABLES {
        text.push_str(&format!("[databases.shop.tables.table{table}]\nmap = 'by_user'\nkey = 'user_id'\n"));
    }
    text
}

//! The least that a proxy can do: what comes from one socket goes to the other, a receive and a send for each, and one wait for
//! events for as many as there are. Nothing is read in it, nothing is shared: each client has a server connection of its own.
//!
//!     cargo run --release --example floor -- 6432 127.0.0.1:5432
//!
//! `benches/e2e.py` measures it beside proxies. It is none: what a socket does not take at once ends its connection.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 128;
const BUFFER_BYTES: usize = 64 * 1024;

struct Relay {
    poll: Poll,
    server: SocketAddr,
    /// Clients at even places, each with its server connection behind it.
    ends: Vec<Option<TcpStream>>,
    buffer: Vec<u8>,
}

impl Relay {
    fn accept(&mut self, client: TcpStream) -> io::Result<()> {
        let server = std::net::TcpStream::connect(self.server)?;
        server.set_nonblocking(true)?;
        for mut end in [client, TcpStream::from_std(server)] {
            end.set_nodelay(true)?;
            self.poll.registry().register(&mut end, Token(self.ends.len()), Interest::READABLE)?;
            self.ends.push(Some(end));
        }
        Ok(())
    }

    fn pass_on(&mut self, from: usize) -> io::Result<()> {
        while let (Some(Some(mut source)), Some(Some(mut sink))) =
            (self.ends.get(from).map(Option::as_ref), self.ends.get(from ^ 1).map(Option::as_ref))
        {
            let read = match source.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                read => read?,
            };
            sink.write_all(&self.buffer[..read])?;
            // The socket is empty: an event tells of what comes behind it.
            if read < self.buffer.len() {
                break;
            }
        }
        Ok(())
    }

    fn close(&mut self, end: usize) {
        for it in [end, end ^ 1] {
            self.ends[it] = None;
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(server)) = (arguments.next(), arguments.next()) else {
        return Err("floor PORT SERVER_ADDRESS".into());
    };
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port.parse()?)))?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relay = Relay { poll, server: server.parse()?, ends: Vec::new(), buffer: vec![0; BUFFER_BYTES] };
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        match relay.poll.poll(&mut events, None) {
            // Somebody looks at it, as strace does.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            waited => waited?,
        }
        for event in &events {
            if event.token() != LISTENER {
                let end = event.token().0;
                relay.pass_on(end).unwrap_or_else(|_| relay.close(end));
                continue;
            }
            loop {
                match listener.accept() {
                    Ok((client, _)) => relay.accept(client)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

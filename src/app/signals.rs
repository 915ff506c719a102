//! What the process does when it is sent a signal.
//!
//! ```text
//!             SIGHUP: reload                     the last transaction has ended,
//!   serving ──┐                                  or shutdown_timeout is over
//!    │ ▲──────┘                                              │
//!    ├── SIGTERM ──▶ draining, until shutdown_timeout ───────┤
//!    └── SIGINT ───▶ draining, however long it takes ────────┼──▶ ended
//!                        │ SIGTERM or SIGINT again ──────────┘
//! ```
//! The console's SHUTDOWN does the same.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Drain, Proxy};

pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

enum Received {
    Hangup,
    Terminate,
    Interrupt,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancel safe.
    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.hangup.recv() => Received::Hangup,
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
        }
    }

    /// SIGTERM or SIGINT.
    async fn stop(&mut self) -> Drain {
        loop {
            match self.next().await {
                Received::Hangup => {}
                Received::Terminate => return Drain::Timeout,
                Received::Interrupt => return Drain::Transactions,
            }
        }
    }
}

/// Serves until a signal ends it.
pub async fn serve(proxy: Proxy, mut signals: Signals) {
    let drain = loop {
        let received = tokio::select! {
            it = signals.next() => it,
            it = proxy.asked_to_end() => break it,
        };
        match received {
            Received::Hangup => proxy.reload(),
            Received::Terminate => break Drain::Timeout,
            Received::Interrupt => break Drain::Transactions,
        }
    };
    tracing::info!("stopping");
    tokio::select! {
        () = proxy.shutdown(drain) => {}
        _ = signals.stop() => tracing::warn!("stopping at once"),
    }
}

/// SIGTERM or SIGINT.
pub async fn stop_signal() -> io::Result<()> {
    Signals::new()?.stop().await;
    Ok(())
}

//! What a session waits for between its client's requests, and how it rests.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::registry::Activity;
use super::session::{End, Session};
use super::timeouts::Patience;

/// What a session's wait between units heeds beside its client.
struct Waiting {
    may_heed: bool,
    may_hear: bool,
    is_tied: bool,
    too_long: Option<(Pin<Box<tokio::time::Sleep>>, Patience)>,
}

/// Who ended a session's wait between units.
pub(super) enum Roused {
    Client,
    /// One that is pinned to it.
    Server,
    /// There are notifications.
    Hub,
    /// It is to have a look at what has changed.
    Keyway,
    /// It has been silent for so long that it may rest.
    Drowsy,
}

impl Session {
    pub fn begin_to_rest(&mut self) {
        self.forget_tracks();
        self.forget_work();
        self.record.set_resting(true);
    }

    /// Goes on to rest.
    pub async fn stir(&mut self, roused: Roused) -> Result<(), End> {
        match roused {
            Roused::Client | Roused::Server => {}
            Roused::Hub => self.deliver().await?,
            Roused::Keyway => self.heed()?,
            Roused::Drowsy => self.record.set_resting(true),
        }
        Ok(())
    }

    pub fn wait_for_client(
        &mut self,
        patience: &mut Option<Option<Patience>>,
    ) -> impl Future<Output = Result<Roused, End>> + Send {
        // Clocks and signals are looked at only when the socket says "not yet", once for each wait.
        let mut waiting = None;
        poll_fn(move |cx| {
            if waiting.is_some() && self.stream.is_readable() {
                return Poll::Ready(Ok(Roused::Client));
            }
            if let Poll::Ready(ready) = self.stream.poll_readable(cx) {
                return Poll::Ready(ready.map(|()| Roused::Client).map_err(|_| End::Left));
            }
            let waiting = waiting.get_or_insert_with(|| self.begin_to_wait(patience));
            self.poll_roused(cx, waiting)
        })
    }

    fn begin_to_wait(&mut self, patience: &mut Option<Option<Patience>>) -> Waiting {
        self.record.set_activity(Activity::Idle);
        let patience = *patience.get_or_insert_with(|| self.patience());
        Waiting {
            may_heed: self.may_heed(),
            // As a server does: between commands and outside of a transaction.
            may_hear: self.transaction.is_idle() && !self.unsynced && !self.skipping,
            is_tied: self.is_tied(),
            too_long: patience.map(|it| (Box::pin(tokio::time::sleep_until(it.until.into())), it)),
        }
    }

    /// By anybody but the client.
    fn poll_roused(&mut self, cx: &mut Context<'_>, waiting: &mut Waiting) -> Poll<Result<Roused, End>> {
        if let Some(held) = self.held.as_mut().filter(|_| waiting.is_tied) {
            let server = &mut held.lease.stream;
            if server.has_news(cx) {
                return Poll::Ready(Ok(Roused::Server));
            }
        }
        if self.poll_notifications(cx, waiting.may_hear) {
            return Poll::Ready(Ok(Roused::Hub));
        }
        if waiting.may_heed && self.record.is_called() {
            return Poll::Ready(Ok(Roused::Keyway));
        }
        if self.record.take_drowsy() {
            return Poll::Ready(Ok(Roused::Drowsy));
        }
        if let Some((too_long, patience)) = &mut waiting.too_long
            && too_long.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(End::Fatal(self.out_of_patience(*patience))));
        }
        Poll::Pending
    }
}

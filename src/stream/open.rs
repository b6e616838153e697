//! How a stream is opened: at once, or when this replica knows what to give its reader.

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{
    body::{BodySize, MessageBody},
    web,
};
use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::{
    backplane::UnavailableError,
    hub::{LimitReached, Shard, Start, Subscriber, TopicSet},
    limits::budget::Claim,
    model::{event::EventId, topic::Topic},
    net::reaper::WatchGuard,
    stream::{
        Outlet,
        body::EventStream,
        control::{self, End},
        lease::{Expiry, Lease, Terms},
        limits::StreamPermit,
        reactor::DirectSocket,
        session::{FellBehindError, Stream, StreamInit},
    },
};

/// A stream that is wanted.
#[derive(Debug)]
pub struct PendingStream {
    pub outlet: web::Data<Outlet>,
    pub shard: Rc<Shard>,
    pub topics: TopicSet,
    /// As asked for.
    pub names: Vec<Topic>,
    /// None if it may go on for ever.
    pub terms: Option<Terms>,
    pub start: Start,
    /// The id that the reader brought, if it is one.
    pub id: Option<EventId>,
    pub counted: Option<Box<StreamPermit>>,
    pub end_at: Instant,
}

/// A stream that has its place in the hub.
#[derive(Debug)]
pub struct Subscribed {
    outlet: web::Data<Outlet>,
    subscriber: Subscriber,
    held: StreamInit,
}

/// How long until the log is asked again that could not be asked.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl PendingStream {
    /// Whether nobody has to be asked or waited for.
    pub fn is_settled(&self) -> bool {
        self.outlet.is_settled(self.start)
    }

    /// The id that the reader brought, if this replica has not read as far.
    fn ahead(&self) -> Option<EventId> {
        self.outlet.ahead(self.start)
    }

    /// Gives it its place.
    ///
    /// # Errors
    /// With the limit that it would go beyond: its reader is to come back later.
    pub fn subscribe(self) -> Result<Subscribed, LimitReached> {
        let subscriber = self.outlet.hub.subscribe(&self.shard, self.topics, self.start);
        let subscriber = subscriber.inspect_err(|reached| self.outlet.count(*reached))?;
        let name = format!("{:032x}", rand::rng().random::<u128>());
        let brought_id = matches!(self.start, Start::After(_) | Start::Ahead(_));
        let resumed = brought_id && !subscriber.is_unknown();
        let open = control::open(subscriber.opened_at(), &name, &self.names, resumed);
        tracing::debug!(stream = name, start = ?self.start, "stream opened");
        let expiry = self.terms.map(|terms| {
            let lease = Lease::new(terms, subscriber.reader().group().topics().clone());
            let listed = self.outlet.leases.list(&name, &lease);
            Expiry::new(lease, listed, Instant::now())
        });
        let held = StreamInit { open, end_at: self.end_at, counted: self.counted, expiry };
        Ok(Subscribed { outlet: self.outlet, subscriber, held })
    }

    /// Opens it when the rings are filled, and it is known whether an id that is ahead of them is
    /// one of the log's. Until then `claim` pays for its topics.
    async fn subscribe_later(mut self, claim: Claim) -> Result<Subscribed, End> {
        tokio::select! {
            biased;
            () = self.outlet.hub.drain_begins() => return Err(End::Draining),
            () = self.outlet.backplane.filled() => {}
            () = sleep_until(self.end_at) => return Err(End::MaxAge),
        }
        while let Some(id) = self.ahead() {
            match self.outlet.backplane.has_reached(id).await {
                Ok(true) => {
                    self.start = Start::Ahead(id);
                    break;
                }
                Ok(false) => break,
                Err(UnavailableError) => {}
            }
            tokio::select! {
                biased;
                () = self.outlet.hub.drain_begins() => return Err(End::Draining),
                () = sleep(ASK_AGAIN) => {}
                () = sleep_until(self.end_at) => return Err(End::MaxAge),
            }
        }
        drop(claim);
        self.subscribe().map_err(|_| End::Busy)
    }
}

impl Subscribed {
    /// As the body of a response, which goes out in HTTP/1.1's chunks or not.
    pub fn body(self, watch: WatchGuard, in_chunks: bool) -> EventStream {
        let stream = Stream::body(self.outlet, self.subscriber, watch, self.held);
        // What a task and its buffers cost is many times what it costs to write one event.
        if in_chunks {
            Stream::write_directly(&stream);
        }
        EventStream(stream)
    }

    /// As one that writes itself.
    pub fn direct(self, socket: DirectSocket) -> Rc<RefCell<Stream>> {
        Stream::direct(self.outlet, self.subscriber, socket, self.held)
    }

    /// Whether it ends with a token.
    pub fn is_leased(&self) -> bool {
        self.held.expiry.is_some()
    }
}

/// The body of a response whose stream cannot be opened yet: its reader is connected and kept so.
pub struct Opening {
    state: State,
    keep_alive: Duration,
    timer: Pin<Box<Sleep>>,
}

type Opened = Pin<Box<dyn Future<Output = Result<EventStream, Bytes>>>>;

enum State {
    Waiting(Opened),
    Open(EventStream),
    Refused(Bytes),
    Over,
}

/// Counts a stream for as long as it waits, or what it is told when the gateway leaves would not
/// leave with it.
struct Waiting(web::Data<Outlet>);

impl Waiting {
    fn new(outlet: &web::Data<Outlet>) -> Self {
        outlet.waiting.fetch_add(1, Ordering::SeqCst);
        Self(outlet.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl Opening {
    /// `claim` pays for the stream's topics while it waits.
    pub fn new(wanted: PendingStream, claim: Claim, watch: WatchGuard, in_chunks: bool) -> Self {
        let keep_alive = wanted.outlet.keep_alive;
        let (outlet, id) = (wanted.outlet.clone(), wanted.id);
        let counted = Waiting::new(&outlet);
        let opened = async move {
            let _counted = counted;
            let subscribed = wanted.subscribe_later(claim).await;
            subscribed.map(|subscribed| subscribed.body(watch, in_chunks)).map_err(|reason| {
                outlet.metrics.streams_refused.with_label_values(&[reason.as_str()]).inc();
                control::refusal(id, reason)
            })
        };
        Self {
            state: State::Waiting(Box::pin(opened)),
            keep_alive,
            timer: Box::pin(sleep_until(Instant::now() + keep_alive)),
        }
    }
}

impl MessageBody for Opening {
    type Error = FellBehindError;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FellBehindError>>> {
        loop {
            match &mut self.state {
                State::Waiting(opened) => match opened.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => self.state = State::Open(stream),
                    Poll::Ready(Err(refusal)) => self.state = State::Refused(refusal),
                    Poll::Pending => {
                        ready!(self.timer.as_mut().poll(cx));
                        let next = Instant::now() + self.keep_alive;
                        self.timer.as_mut().reset(next);
                        return Poll::Ready(Some(Ok(control::COMMENT)));
                    }
                },
                State::Open(stream) => return Pin::new(stream).poll_next(cx),
                State::Refused(refusal) => {
                    let last = std::mem::take(refusal);
                    self.state = State::Over;
                    return Poll::Ready(Some(Ok(last)));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }
}

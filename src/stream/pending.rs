//! Pending streams: streams that are admitted and not open yet.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::atomic::Ordering,
    task::Waker,
    time::Duration,
};

use actix_web::{rt::spawn, web};
use rand::RngExt as _;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backplane::UnavailableError,
    hub::{GroupKey, Shard, Start, SubscribeError, Subscriber},
    limits::budget::Claim,
    model::{
        control::{self, EndReason, retry_after_cut_ms},
        event_id::EventId,
        topic::TopicPattern,
    },
    presence::participation::Participation,
    stream::{
        StreamContext,
        fold::{FoldRule, Slow},
        lease::{Lease, LeaseTimer, Terms},
        limits::StreamPermit,
    },
};

/// Stream that was admitted: everything that it needs to subscribe.
#[derive(Debug)]
pub(crate) struct PendingStream {
    pub context: web::Data<StreamContext>,
    pub shard: Rc<Shard>,
    /// Topics, filter and format of the stream.
    pub key: GroupKey,
    /// Topics as the reader named them.
    pub names: Vec<TopicPattern>,
    /// Terms of the reader's token. `None` if the stream does not end with a token.
    pub terms: Option<Terms>,
    pub start: Start,
    /// Rule by which the stream selects its first events. `None` if it begins with all of them.
    pub fold: Option<FoldRule>,
    pub slow: Slow,
    /// Part of the stream in its topics, which begins when the stream opens.
    pub presence: Option<Box<Participation>>,
    /// Id that the reader sent, if it is an event id.
    pub id: Option<EventId>,
    pub permit: Option<Box<StreamPermit>>,
    /// Time at which the stream has reached its maximum age.
    pub end_at: Instant,
}

/// Stream that has its subscriber.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) subscriber: Subscriber,
    /// First message of the stream.
    pub(crate) open: Box<control::Open>,
    pub(crate) lease: Option<LeaseTimer>,
    pub(crate) permit: Option<Box<StreamPermit>>,
}

/// Answer that a stream waits for: its start, or the reason for which its reader is to retry later.
#[derive(Debug, Default)]
pub(crate) struct LogAnswer {
    answer: Cell<Option<Result<Start, EndReason>>>,
    waker: RefCell<Option<Waker>>,
    /// Memory that is reserved for the topics of the stream until the stream opens. Then the group
    /// claims it.
    claim: RefCell<Option<Claim>>,
    /// Task that asks the log. It ends with the stream.
    task: RefCell<Option<JoinHandle<()>>>,
}

/// Pause before the log is asked again after it did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl PendingStream {
    /// Returns true if the stream can be opened without asking the log or waiting for it.
    pub(crate) fn is_settled(&self) -> bool {
        self.context.is_settled(self.start)
    }

    /// Subscribes.
    ///
    /// # Errors
    /// Returns the limit that the stream would exceed: its reader is to retry later.
    pub(crate) fn subscribe(self, now: Instant) -> Result<Started, SubscribeError> {
        let subscriber = self.context.hub.subscribe(&self.shard, self.key, self.start);
        let subscriber = subscriber.inspect_err(|reached| self.context.count(*reached))?;
        let name = format!("{:032x}", rand::rng().random::<u128>());
        let brought_id = matches!(self.start, Start::After(_) | Start::Ahead(_));
        let lease = self.terms.map(|terms| {
            let lease = Lease::new(terms, subscriber.reader().group().key().clone());
            let entry = self.context.leases.add(&name, &lease);
            LeaseTimer::new(lease, entry, now)
        });
        let open = control::Open {
            id: subscriber.cursor(),
            stream: name,
            topics: self.names,
            resumed: brought_id && !subscriber.is_unknown(),
            retry_ms: retry_after_cut_ms(),
        };
        Ok(Started { subscriber, open: Box::new(open), lease, permit: self.permit })
    }

    /// Starts a task that determines the start of the stream: it waits until the rings are filled,
    /// and asks the log whether it has assigned an id that is newer than the rings. Until the
    /// stream opens, the answer holds `claim`, the memory of the stream's topics.
    pub(crate) fn ask_log(&self, claim: Claim) -> Rc<LogAnswer> {
        let answer = Rc::<LogAnswer>::default();
        answer.claim.replace(Some(claim));
        let (context, start, end_at) = (self.context.clone(), self.start, self.end_at);
        let weak = Rc::downgrade(&answer);
        // Counted before the task runs, so that the next stream finds this one counted.
        let waiting = Waiting::new(&context);
        let task = spawn(async move {
            let _waiting = waiting;
            let found = find_start(&context, start, end_at).await;
            if let Some(answer) = weak.upgrade() {
                answer.set(found);
            }
        });
        answer.task.replace(Some(task));
        answer
    }
}

async fn find_start(
    context: &StreamContext,
    start: Start,
    end_at: Instant,
) -> Result<Start, EndReason> {
    tokio::select! {
        biased;
        () = context.hub.drain_begins() => return Err(EndReason::Draining),
        () = context.backplane.filled() => {}
        () = sleep_until(end_at) => return Err(EndReason::MaxAge),
    }
    while let Some(id) = context.ahead(start) {
        match context.backplane.has_reached(id).await {
            Ok(true) => return Ok(Start::Ahead(id)),
            Ok(false) => return Ok(start),
            Err(UnavailableError) => {}
        }
        tokio::select! {
            biased;
            () = context.hub.drain_begins() => return Err(EndReason::Draining),
            () = sleep(ASK_AGAIN) => {}
            () = sleep_until(end_at) => return Err(EndReason::MaxAge),
        }
    }
    Ok(start)
}

impl LogAnswer {
    /// Sets the answer and wakes the stream.
    pub(super) fn set(&self, answer: Result<Start, EndReason>) {
        self.answer.set(Some(answer));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Takes the answer, if it has arrived, and releases the reserved memory.
    pub(crate) fn take(&self) -> Option<Result<Start, EndReason>> {
        let answer = self.answer.take()?;
        self.claim.take();
        Some(answer)
    }

    /// Registers `waker`, which is woken when the answer arrives.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.replace(Some(waker.clone()));
    }
}

#[cfg(test)]
impl LogAnswer {
    /// Creates an answer that a test sets, instead of a task.
    pub(crate) fn for_tests(claim: Claim) -> Rc<Self> {
        let answer = Rc::<Self>::default();
        answer.claim.replace(Some(claim));
        answer
    }
}

impl Drop for LogAnswer {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Guard that counts a stream that waits for the log, or a connection that waits for its first
/// stream, so that the gateway does not exit before it has sent its end.
#[derive(Debug)]
pub(crate) struct Waiting(web::Data<StreamContext>);

impl Waiting {
    pub(crate) fn new(context: &web::Data<StreamContext>) -> Self {
        context.waiting.fetch_add(1, Ordering::SeqCst);
        Self(context.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

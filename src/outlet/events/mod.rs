//! `GET /events`: admits a reader, and opens its stream.

use std::{cell::RefCell, future::poll_fn, pin::pin, rc::Rc, task::Poll};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::BoxBody,
    http::{Method, StatusCode},
    web,
};
use rand::RngExt as _;
use tokio::time::Instant;

mod answer;

use crate::{
    auth::{
        AuthError,
        access::{self, TopicDeniedError},
        grant::Grant,
    },
    clock,
    http::{client_address::client_address, problem::problem},
    hub::{GroupKey, Shard, SubscribeError},
    model::{
        control::{EndReason, refusal_wait},
        encode::Format,
        filter::{Filter, FilterCache},
    },
    net::http1::{
        peer_closed::PeerClosed,
        takeover::{TakenOver, Takeover},
    },
    outlet::{
        ndjson::{NDJSON_CLOUD_EVENTS, NDJSON_MESSAGES},
        poll::{self, POLL_CLOUD_EVENTS, POLL_MESSAGES},
        refusal::deny,
        sse::{SSE, SSE_CLOUD_EVENTS, SSE_MESSAGES},
        tickets::redeem,
    },
    stream::{
        StreamContext, TOO_OFTEN,
        drive::{body::StreamBody, reactor::Reactor},
        lease::Terms,
        pending::PendingStream,
        request::{Delivery, EventFormat, StreamRequest, StreamRequestError},
        session::Session,
        turns::{Turn, Turns},
    },
};
use answer::{refuse, stream_head, too_many};

/// State of the worker that the route runs on.
#[derive(Debug)]
pub(crate) struct Worker {
    pub shard: Rc<Shard>,
    pub reactor: Rc<Reactor>,
    turns: Turns,
    /// Filters of earlier requests.
    filters: RefCell<FilterCache>,
}

/// Longest query, and largest number of topics, of a request that needs no turn: such a request
/// takes a worker some microseconds.
const SHORT_QUERY_BYTES: usize = 512;
const FEW_TOPICS: usize = 64;

impl Worker {
    /// Creates the state of one worker.
    pub(crate) fn new(shard: Rc<Shard>, reactor: Rc<Reactor>) -> Self {
        Self { shard, reactor, turns: Turns::default(), filters: RefCell::default() }
    }
}

/// Answers `GET` and `HEAD`.
pub(crate) async fn events(
    request: HttpRequest,
    context: web::Data<StreamContext>,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let is_long = SHORT_QUERY_BYTES < request.query_string().len();
    let mut turn = worker.turns.take(is_long).await;
    let asked = StreamRequest::read(
        &request,
        clock::now_ms(),
        context.topics_per_stream,
        &mut worker.filters.borrow_mut(),
    );
    if let Err(wait) = context.admit(&request) {
        let asked = asked.as_ref().ok();
        return too_many(&context, asked, "rate", TOO_OFTEN, wait);
    }
    let asked = match asked {
        Ok(asked) => asked,
        Err(StreamRequestError::TooManyTopics(max)) => {
            context.metrics.limit("topics-per-stream").inc();
            let text = format!("topic: more than {max}; leave it out to get all topics");
            return problem(StatusCode::BAD_REQUEST, text);
        }
        Err(StreamRequestError::Parameter(text)) => return problem(StatusCode::BAD_REQUEST, text),
        Err(StreamRequestError::NotAcceptable) => {
            let text =
                "Accept rules out text/event-stream, application/x-ndjson and application/json";
            return problem(StatusCode::NOT_ACCEPTABLE, text);
        }
    };
    let ticket = asked.ticket.as_deref().filter(|_| request.method() == Method::GET);
    let grant = match admit(&request, &context, ticket, &mut turn).await {
        Ok(grant) => grant,
        Err(denied) if denied.is_temporary() => {
            return refuse(&context, &asked, EndReason::Unready, &denied.to_string());
        }
        Err(denied) => return deny(&denied),
    };
    let patterns = grant.as_ref().map_or(0, |grant| grant.topics.len());
    let turn = match turn {
        None => worker.turns.take(FEW_TOPICS < asked.topics.len().max(patterns)).await,
        held => held,
    };
    let topics = match access::choose(&asked.topics, grant.as_ref(), &context.served) {
        Ok(topics) => topics,
        Err(denied) => return deny_topic(&denied),
    };
    let is_poll = asked.delivery == Delivery::Poll;
    if request.method() == Method::HEAD {
        let mut head =
            if is_poll { poll::head(grant.is_none()) } else { stream_head(asked.delivery) };
        return head.message_body(actix_web::body::None::new()).map_or_else(
            |_| HttpResponse::InternalServerError().finish(),
            HttpResponse::map_into_boxed_body,
        );
    }
    let filter = filter_of(&asked, grant.as_ref());
    let key = GroupKey { topics, filter, format: format_of(&asked) };
    let session = match open(&context, &request, &asked, key, grant.as_ref(), &worker) {
        Ok(session) => session,
        Err(refusal) => return *refusal,
    };
    if is_poll {
        // Other requests are not kept waiting while the poll waits.
        drop(turn);
        let client = request.extensions().get::<Rc<PeerClosed>>().cloned();
        let page = poll::read(session, &asked.poll, &context.poll_answers, client.as_deref()).await;
        return match page {
            Ok(page) => page.answer(&request, grant.is_none()),
            Err(reason) => poll::refusal(reason),
        };
    }
    stream(&request, &asked, session, &worker)
}

/// Answers a request for a topic that the reader may not have.
fn deny_topic(denied: &TopicDeniedError) -> HttpResponse {
    match denied {
        TopicDeniedError::NotServed(topic) => {
            problem(StatusCode::NOT_FOUND, format!("topic: {topic} is not served here"))
        }
        TopicDeniedError::NotGranted(topic) => {
            problem(StatusCode::FORBIDDEN, format!("topic: the token does not grant {topic}"))
        }
    }
}

/// Verifies the reader's token or ticket. Usually that does not have to wait; if it does, the turn
/// ends.
async fn admit(
    request: &HttpRequest,
    context: &StreamContext,
    ticket: Option<&str>,
    turn: &mut Option<Turn<'_>>,
) -> Result<Option<Grant>, AuthError> {
    let mut admitted = pin!(async {
        match ticket {
            Some(ticket) => redeem(context, ticket).await.map(Some),
            None => context.access.admit(request).await,
        }
    });
    match poll_fn(|cx| Poll::Ready(admitted.as_mut().poll(cx))).await {
        Poll::Ready(at_once) => at_once,
        Poll::Pending => {
            *turn = None;
            admitted.await
        }
    }
}

/// Counts a stream and opens it.
///
/// # Errors
/// Returns the refusal when the gateway is shutting down, or the stream would exceed a limit.
fn open(
    context: &web::Data<StreamContext>,
    request: &HttpRequest,
    asked: &StreamRequest,
    key: GroupKey,
    grant: Option<&Grant>,
    worker: &Worker,
) -> Result<Session, Box<HttpResponse>> {
    if context.hub.draining().is_some() {
        let text = "this gateway is shutting down";
        return Err(refuse(context, asked, EndReason::Draining, text).into());
    }
    let holder = grant.map(|grant| &grant.holder);
    let address = client_address(request.head(), context.trusted_proxies);
    let counted = match context.limits.try_acquire(address, holder) {
        Ok(counted) => counted,
        Err(met) => {
            let wait = refusal_wait();
            return Err(too_many(context, Some(asked), met.as_str(), met.text(), wait).into());
        }
    };
    // The maximum age is random, so that streams that were opened together do not end together.
    let age = context.stream_age_max.mul_f64(rand::rng().random_range(0.8..=1.0));
    let now = Instant::now();
    let pending = PendingStream {
        context: context.clone(),
        shard: Rc::clone(&worker.shard),
        key,
        terms: grant.map(Terms::of),
        names: asked.topics.clone(),
        start: asked.start,
        fold: asked.fold.clone(),
        slow: asked.slow,
        id: asked.id,
        permit: counted,
        end_at: now + age,
    };
    begin(context, pending, now)
        .map_err(|reached| refuse(context, asked, EndReason::Busy, &reached.to_string()).into())
}

/// Answers with a stream.
fn stream(
    request: &HttpRequest,
    asked: &StreamRequest,
    session: Session,
    worker: &Worker,
) -> HttpResponse {
    if let Some(takeover) = request.extensions().get::<Rc<Takeover>>() {
        let reactor = Rc::clone(&worker.reactor);
        takeover.accept(move |socket| reactor.register(socket, session));
        return stream_head(asked.delivery).body(TakenOver);
    }
    stream_head(asked.delivery).body(BoxBody::new(StreamBody::new(session)))
}

/// Returns the filter of a stream: an event must match that of the request and that of the token.
fn filter_of(asked: &StreamRequest, grant: Option<&Grant>) -> Option<Filter> {
    match (grant.and_then(|grant| grant.filter.as_ref()), &asked.filter) {
        (Some(granted), Some(asked)) => Some(granted.and(asked)),
        (granted, asked) => granted.or(asked.as_ref()).cloned(),
    }
}

/// Returns the format of a stream.
fn format_of(asked: &StreamRequest) -> Format {
    match (asked.delivery, asked.format) {
        (Delivery::EventStream, EventFormat::Data) => SSE,
        (Delivery::EventStream, EventFormat::Message) => SSE_MESSAGES,
        (Delivery::EventStream, EventFormat::CloudEvents) => SSE_CLOUD_EVENTS,
        (Delivery::JsonLines, EventFormat::Data | EventFormat::Message) => NDJSON_MESSAGES,
        (Delivery::JsonLines, EventFormat::CloudEvents) => NDJSON_CLOUD_EVENTS,
        (Delivery::Poll, EventFormat::Data | EventFormat::Message) => POLL_MESSAGES,
        (Delivery::Poll, EventFormat::CloudEvents) => POLL_CLOUD_EVENTS,
    }
}

/// Opens a stream at once, or lets it wait for the log.
///
/// # Errors
/// Returns the limit that the stream would exceed.
fn begin(
    context: &StreamContext,
    pending: PendingStream,
    now: Instant,
) -> Result<Session, SubscribeError> {
    if pending.is_settled() {
        return Session::open(pending, now);
    }
    let claim = context.reserve(&pending.key)?;
    let answer = pending.ask_log(claim);
    Ok(Session::wait_for_log(pending, answer, now))
}

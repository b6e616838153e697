//! `GET /events`: admits a reader, and opens its stream.

use std::{cell::RefCell, future::poll_fn, pin::pin, rc::Rc, task::Poll};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::BoxBody,
    http::{Method, StatusCode},
    web,
};
mod answer;

use crate::{
    auth::{AuthError, grant::Grant},
    clock,
    http::{client_address::client_address, problem::problem},
    hub::Shard,
    model::{
        control::{EndReason, refusal_wait},
        encode::Format,
        filter::FilterCache,
    },
    net::http1::{
        peer_closed::PeerClosed,
        takeover::{TakenOver, Takeover},
    },
    outlet::{
        ndjson::{NDJSON_CLOUD_EVENTS, NDJSON_MESSAGES},
        poll::{self, POLL_CLOUD_EVENTS, POLL_MESSAGES},
        refusal::{deny, deny_topic},
        sse::{SSE, SSE_CLOUD_EVENTS, SSE_MESSAGES},
        tickets::redeem,
    },
    stream::{
        StreamContext, TOO_OFTEN,
        delivery::Delivery,
        drive::{body::StreamBody, reactor::Reactor},
        open::{OpenError, StreamReader},
        presence::PresenceError,
        request::{EventFormat, StreamRequest, StreamRequestError},
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
    pub turns: Turns,
    /// Filters of earlier requests.
    pub filters: RefCell<FilterCache>,
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
        Err(err) => return malformed(&context, &err),
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
    let address = client_address(request.head(), context.trusted_proxies);
    let reader = StreamReader { address, grant: grant.as_ref() };
    let topics = match reader.topics(&context, &asked) {
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
    let session = reader.open(&context, &worker.shard, &asked, topics, format_of(&asked));
    let session = match session {
        Ok(session) => session,
        Err(err) => return not_opened(&context, &asked, &err),
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

/// Answers a request that is malformed, or accepts no form of the answer.
fn malformed(context: &StreamContext, err: &StreamRequestError) -> HttpResponse {
    context.count_malformed(err);
    let status = match err {
        StreamRequestError::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        StreamRequestError::TooManyTopics(_) | StreamRequestError::Parameter(_) => {
            StatusCode::BAD_REQUEST
        }
    };
    problem(status, err.to_string())
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

/// Returns the refusal of a stream that the reader is to open later.
fn not_opened(context: &StreamContext, asked: &StreamRequest, err: &OpenError) -> HttpResponse {
    let text = err.to_string();
    match err {
        OpenError::Draining => refuse(context, asked, EndReason::Draining, &text),
        OpenError::TooMany(limit) => {
            too_many(context, Some(asked), limit.as_str(), &text, refusal_wait())
        }
        OpenError::Presence(PresenceError::Name(_)) => problem(StatusCode::BAD_REQUEST, text),
        OpenError::Presence(PresenceError::TooManyTopics(_)) | OpenError::Busy(_) => {
            refuse(context, asked, EndReason::Busy, &text)
        }
    }
}

/// Answers with a stream.
fn stream(
    request: &HttpRequest,
    asked: &StreamRequest,
    session: Session,
    worker: &Worker,
) -> HttpResponse {
    if let Some(takeover) = request.extensions().get::<Rc<Takeover>>()
        && takeover.is_direct()
    {
        let reactor = Rc::clone(&worker.reactor);
        takeover.accept(move |socket| reactor.register(socket.into_direct()?, session));
        return stream_head(asked.delivery).body(TakenOver);
    }
    stream_head(asked.delivery).body(BoxBody::new(StreamBody::new(session)))
}

/// Returns the format of a stream.
fn format_of(asked: &StreamRequest) -> Format {
    match (asked.delivery, asked.format) {
        (Delivery::JsonLines, EventFormat::Data | EventFormat::Message) => NDJSON_MESSAGES,
        (Delivery::JsonLines, EventFormat::CloudEvents) => NDJSON_CLOUD_EVENTS,
        (Delivery::Poll, EventFormat::Data | EventFormat::Message) => POLL_MESSAGES,
        (Delivery::Poll, EventFormat::CloudEvents) => POLL_CLOUD_EVENTS,
        (_, EventFormat::Data) => SSE,
        (_, EventFormat::Message) => SSE_MESSAGES,
        (_, EventFormat::CloudEvents) => SSE_CLOUD_EVENTS,
    }
}

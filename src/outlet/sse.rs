//! `GET /events`: server-sent events.

use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll, time::Duration};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::BoxBody,
    http::{ConnectionType, Method, StatusCode, Version, header},
    web,
};
use rand::RngExt as _;
use tokio::time::Instant;

use crate::{
    auth::{
        AuthError,
        access::{self, TopicDeniedError},
        grant::Grant,
    },
    clock,
    http::{
        client_address::client_address,
        problem::{come_back_later, problem, problem_with},
    },
    hub::{Shard, TopicSet},
    net::{connection::Connection, reaper::Reaper},
    stream::{
        Outlet, TOO_OFTEN,
        control::{self, End},
        lease::Terms,
        open::{Opening, PendingStream},
        reactor::{Handoff, TakenOver, Takeover},
        request::{StreamRequest, StreamRequestError},
        turns::{Turn, Turns},
    },
};

/// What the route needs of the worker it runs on.
#[derive(Debug)]
pub struct Worker {
    pub shard: Rc<Shard>,
    pub reaper: Rc<Reaper>,
    turns: Turns,
}

/// Who asks for no more bytes and topics than this waits for no turn: it takes a worker some
/// microseconds.
const SHORT_QUERY_BYTES: usize = 512;
const FEW_TOPICS: usize = 64;

impl Worker {
    pub fn new(shard: Rc<Shard>, reaper: Rc<Reaper>) -> Self {
        Self { shard, reaper, turns: Turns::default() }
    }
}

/// The handler of `GET` and `HEAD`.
pub async fn events(
    request: HttpRequest,
    outlet: web::Data<Outlet>,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let is_long = SHORT_QUERY_BYTES < request.query_string().len();
    let mut turn = worker.turns.take(is_long).await;
    let asked = StreamRequest::read(&request, clock::now_ms(), outlet.topics_per_stream);
    // One that cannot be opened at once needs a body that waits. Before anything is counted or used
    // up, since the request comes again.
    if let (Ok(asked), Some(takeover)) = (&asked, request.extensions().get::<Rc<Takeover>>())
        && !outlet.is_settled(asked.start)
    {
        takeover.leave(Handoff::Decline);
        return HttpResponse::Ok().finish();
    }
    if let Err(wait) = outlet.admit(&request) {
        let asked = asked.as_ref().ok();
        return too_many(&outlet, asked, "rate", TOO_OFTEN, wait);
    }
    let asked = match asked {
        Ok(asked) => asked,
        Err(StreamRequestError::TooManyTopics(max)) => {
            outlet.metrics.limit("topics-per-stream").inc();
            let text = format!("topic: more than {max}; leave it out to get all topics");
            return problem(StatusCode::BAD_REQUEST, text);
        }
        Err(StreamRequestError::Parameter(text)) => return problem(StatusCode::BAD_REQUEST, text),
        Err(StreamRequestError::NotAcceptable) => {
            let text = "this is text/event-stream, which Accept rules out";
            return problem(StatusCode::NOT_ACCEPTABLE, text);
        }
    };
    let ticket = asked.ticket.as_deref().filter(|_| request.method() == Method::GET);
    let grant = match admit(&request, &outlet, ticket, &mut turn).await {
        Ok(grant) => grant,
        Err(denied) if denied.is_temporary() => {
            return refuse(&outlet, &asked, End::Unready, &denied.to_string());
        }
        Err(denied) => return deny(&denied),
    };
    let patterns = grant.as_ref().map_or(0, |grant| grant.topics.len());
    let _turn = match turn {
        None => worker.turns.take(FEW_TOPICS < asked.topics.len().max(patterns)).await,
        held => held,
    };
    let topics = match access::choose(&asked.topics, grant.as_ref(), &outlet.served) {
        Ok(topics) => topics,
        Err(TopicDeniedError::NotServed(topic)) => {
            return problem(StatusCode::NOT_FOUND, format!("the topic {topic} is not served here"));
        }
        Err(TopicDeniedError::NotGranted(topic)) => {
            let text = format!("the token does not grant the topic {topic}");
            return problem(StatusCode::FORBIDDEN, text);
        }
    };
    if request.method() == Method::HEAD {
        return response().message_body(actix_web::body::None::new()).map_or_else(
            |_| HttpResponse::InternalServerError().finish(),
            HttpResponse::map_into_boxed_body,
        );
    }
    open(&outlet, &request, &asked, topics, grant.as_ref(), &worker)
}

/// Finds out who asks. Most often that is known at once. If somebody else has to be asked for it,
/// the turn ends.
async fn admit(
    request: &HttpRequest,
    outlet: &Outlet,
    ticket: Option<&str>,
    turn: &mut Option<Turn<'_>>,
) -> Result<Option<Grant>, AuthError> {
    let mut admitted = pin!(async {
        match ticket {
            Some(ticket) => outlet.access.admit_ticket(ticket, &outlet.backplane).await.map(Some),
            None => outlet.access.admit(request).await,
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

/// A refusal that passes, of what is no stream.
pub fn unready(text: &str) -> HttpResponse {
    come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, control::refusal_wait())
}

/// Returns the answer to a request whose token or ticket is refused.
pub fn deny(denied: &AuthError) -> HttpResponse {
    denied.response(control::refusal_wait())
}

/// The answer to any other method.
pub async fn only_get() -> HttpResponse {
    let allow = (header::ALLOW, "GET, HEAD, OPTIONS");
    problem_with(StatusCode::METHOD_NOT_ALLOWED, allow, "/events is read with GET")
}

fn open(
    outlet: &web::Data<Outlet>,
    request: &HttpRequest,
    asked: &StreamRequest,
    topics: TopicSet,
    grant: Option<&Grant>,
    worker: &Worker,
) -> HttpResponse {
    if outlet.hub.draining().is_some() {
        return refuse(outlet, asked, End::Draining, "this gateway is shutting down");
    }
    let holder = grant.map(|grant| &grant.holder);
    let address = client_address(request.head(), outlet.trusted_proxies);
    let counted = match outlet.limits.try_acquire(address, holder) {
        Ok(counted) => counted,
        Err(met) => {
            return too_many(
                outlet,
                Some(asked),
                met.as_str(),
                met.text(),
                control::refusal_wait(),
            );
        }
    };
    // Spread, so that streams that were opened together do not end together.
    let age = outlet.stream_age_max.mul_f64(rand::rng().random_range(0.8..=1.0));
    let end_at = Instant::now() + age;
    let head = request.head();
    let in_chunks = head.version == Version::HTTP_11 && !head.upgrade();
    let wanted = PendingStream {
        outlet: outlet.clone(),
        shard: Rc::clone(&worker.shard),
        terms: grant.map(Terms::of),
        topics,
        names: asked.topics.clone(),
        start: asked.start,
        id: asked.id,
        counted,
        end_at,
    };
    let takeover = request.extensions().get::<Rc<Takeover>>().cloned();
    if let Some(takeover) = takeover {
        return match wanted.subscribe() {
            Ok(subscribed) => {
                takeover.leave(Handoff::Stream(Box::new(subscribed)));
                response().body(TakenOver)
            }
            Err(reached) => refuse(outlet, asked, End::Busy, &reached.to_string()),
        };
    }
    let Some(connection) = Connection::of(request.conn_data(), &request.extensions()) else {
        let text = "this connection did not come through the gateway's listener";
        return problem(StatusCode::INTERNAL_SERVER_ERROR, text);
    };
    let watch = worker.reaper.watch(&connection);
    let body = if wanted.is_settled() {
        match wanted.subscribe() {
            Ok(subscribed) => BoxBody::new(subscribed.body(watch, in_chunks)),
            Err(reached) => return refuse(outlet, asked, End::Busy, &reached.to_string()),
        }
    } else {
        match outlet.reserve(&wanted.topics) {
            Ok(claim) => BoxBody::new(Opening::new(wanted, claim, watch, in_chunks)),
            Err(reached) => return refuse(outlet, asked, End::Busy, &reached.to_string()),
        }
    };
    let mut response = response().body(body);
    if !in_chunks && head.version < Version::HTTP_2 {
        // HTTP/1.0 knows no chunks, and actix writes none to whoever asks for an upgrade, though
        // the head says so. The end of the connection is the end of the stream.
        response.head_mut().no_chunking(true);
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

/// A refusal that passes. `EventSource` gives up for good on any status but 200, so it gets one
/// that ends at once and says when to come back.
fn refuse(outlet: &Outlet, asked: &StreamRequest, reason: End, text: &str) -> HttpResponse {
    outlet.metrics.streams_refused.with_label_values(&[reason.as_str()]).inc();
    if asked.is_event_source {
        return response().force_close().body(control::refusal(asked.id, reason));
    }
    come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, control::refusal_wait())
}

/// As [`refuse`], of one that has as many streams as it may, or asks too often.
fn too_many(
    outlet: &Outlet,
    asked: Option<&StreamRequest>,
    reason: &str,
    text: &str,
    wait: Duration,
) -> HttpResponse {
    outlet.metrics.streams_refused.with_label_values(&[reason]).inc();
    if let Some(asked) = asked.filter(|asked| asked.is_event_source) {
        return response().force_close().body(control::refusal(asked.id, End::Busy));
    }
    come_back_later(StatusCode::TOO_MANY_REQUESTS, text, wait)
}

/// The head of every stream. `no-transform` keeps proxies from compressing it, which would hold
/// events back; `X-Accel-Buffering` keeps nginx from buffering it.
fn response() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        .insert_header(("X-Accel-Buffering", "no"));
    response
}

//! gRPC: the service `stream_events.v1.StreamEvents`, health checks and reflection, over HTTP/2,
//! and as gRPC-Web over any version of HTTP. docs/grpc.md describes them.
//!
//! A call is an HTTP request. It uses the same routes, CORS rules, tokens and limits as every other
//! request. With gRPC the status is in the trailers; with gRPC-Web it is the last part of the body.

mod answer;
mod encode;
mod health;
mod message;
mod proto;
mod protocol;
mod publish;
mod record;
mod reflection;
mod session;
mod status;
mod subscribe;

use std::{cell::RefCell, rc::Rc};

use actix_http::BoxedPayloadStream;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, Version},
    web,
};
use prost::Message;
use tokio::time::{Instant, timeout_at};

pub(crate) use health::Serving;
pub(crate) use protocol::{has_trailers, is_call, is_grpc};

use self::{
    answer::{Call, Once, deadline_exceeded},
    health::Watch,
    message::{CheckedBody, Incoming, PREFIX_BYTES, decode_only, encoded},
    proto::{health::HealthListRequest, stream_events::SubscribeRequest},
    protocol::{Protocol, timeout},
    reflection::Reflection,
    session::{LONG_REQUEST_BYTES, Session},
    status::{Code, Status},
    subscribe::Records,
};
use crate::{
    http::{client_address::client_address, problem::problem},
    inlet::{
        body::{self, BodyLimits},
        publish::PublishEndpoint,
    },
    outlet::{
        client::{Client, refusal::Refusal},
        events::Worker,
    },
    stream::{StreamContext, request::header_id},
};

/// Paths of the methods: a path for each service.
pub(crate) const PATHS: [&str; 4] = [
    "/grpc.health.v1.Health/{method}",
    "/grpc.reflection.v1.ServerReflection/{method}",
    "/grpc.reflection.v1alpha.ServerReflection/{method}",
    "/stream_events.v1.StreamEvents/{method}",
];

/// Path of any method of any service, also of a service that does not exist.
pub(crate) const ANY_PATH: &str = "/{service}/{name}";

/// Largest message with the name of a service, in bytes.
const NAME_MAX_BYTES: usize = 1_024;

/// State that the methods need.
struct Endpoint {
    context: web::Data<StreamContext>,
    worker: web::Data<Worker>,
    publish: web::Data<PublishEndpoint>,
    serving: web::Data<Serving>,
}

/// Answers a call.
pub(crate) async fn call(
    request: HttpRequest,
    payload: web::Payload,
    context: web::Data<StreamContext>,
    worker: web::Data<Worker>,
    publish: web::Data<PublishEndpoint>,
    serving: web::Data<Serving>,
) -> HttpResponse {
    let (protocol, deadline) = match head(&request) {
        Ok(head) => head,
        Err(refusal) => return *refusal,
    };
    let call = || Call::new(&request, protocol, deadline.clone().unwrap_or_default());
    let deadline = match &deadline {
        Ok(deadline) => *deadline,
        Err(status) => return call().refuse(status),
    };
    let endpoint = Endpoint { context, worker, publish, serving };
    let answered = endpoint.answer(&request, payload, call());
    let answered = match deadline {
        Some(deadline) => {
            timeout_at(deadline, answered).await.unwrap_or_else(|_| Err(deadline_exceeded()))
        }
        None => answered.await,
    };
    answered.unwrap_or_else(|status| call().refuse(&status))
}

/// Refuses a call of a service that does not exist.
pub(crate) fn unknown_service(request: &HttpRequest) -> HttpResponse {
    match head(request) {
        Ok((protocol, _)) => Call::new(request, protocol, None).refuse(&unimplemented(request)),
        Err(refusal) => *refusal,
    }
}

fn unimplemented(request: &HttpRequest) -> Status {
    let path: String = request.path().chars().take(128).collect();
    Status::new(Code::Unimplemented, format!("there is no method {path}"))
}

/// Protocol of a call and its deadline, or the status of a malformed one.
type Head = (Protocol, Result<Option<Instant>, Status>);

/// Reads the head of a request.
///
/// # Errors
/// Returns the answer to a request that is none of gRPC, or cannot have trailers.
fn head(request: &HttpRequest) -> Result<Head, Box<HttpResponse>> {
    let Some(protocol) = Protocol::of(request.head()) else {
        let text = "this path is for gRPC: expected the content type application/grpc, or \
                    application/grpc-web from a browser";
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into());
    };
    if protocol == Protocol::Grpc && request.version() < Version::HTTP_2 {
        let text = "gRPC needs HTTP/2; gRPC-Web (application/grpc-web) does not";
        return Err(problem(StatusCode::HTTP_VERSION_NOT_SUPPORTED, text).into());
    }
    let deadline = timeout(request.head()).map(|time| time.map(|time| Instant::now() + time));
    Ok((protocol, deadline))
}

impl Endpoint {
    /// Calls the method.
    async fn answer(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        call: Call,
    ) -> Result<HttpResponse, Status> {
        match request.path() {
            "/stream_events.v1.StreamEvents/Subscribe" => {
                self.subscribe(request, payload, call).await
            }
            "/stream_events.v1.StreamEvents/Session" => {
                let client = Rc::new(self.admit(request).await?);
                let incoming = Incoming::new(payload, session::COMMAND_MAX_BYTES);
                Ok(call.answer(Session::new(client, incoming)?))
            }
            "/stream_events.v1.StreamEvents/Publish" => {
                let max = publish::REQUEST_MAX_BYTES;
                let received = self.only_message(request, payload, call.protocol, max);
                Ok(once(call, &publish::publish(&self.publish, request, received).await?))
            }
            "/grpc.health.v1.Health/Check" => {
                let asked =
                    self.only_message(request, payload, call.protocol, NAME_MAX_BYTES).await?;
                Ok(once(call, &self.serving.check(&asked)?))
            }
            "/grpc.health.v1.Health/List" => {
                let HealthListRequest {} =
                    self.only_message(request, payload, call.protocol, NAME_MAX_BYTES).await?;
                Ok(once(call, &self.serving.list()))
            }
            "/grpc.health.v1.Health/Watch" => {
                let client = self.client(request)?;
                let asked =
                    self.only_message(request, payload, call.protocol, NAME_MAX_BYTES).await?;
                Ok(call.answer(Watch::new(&client, self.serving.clone(), asked)?))
            }
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                let client = self.client(request)?;
                let incoming = Incoming::new(payload, reflection::REQUEST_MAX_BYTES);
                let reflection = Reflection::new(incoming, client.context, client.address);
                Ok(call.answer(reflection))
            }
            _ => Err(unimplemented(request)),
        }
    }

    async fn subscribe(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        call: Call,
    ) -> Result<HttpResponse, Status> {
        let client = self.admit(request).await?;
        let max = subscribe::REQUEST_MAX_BYTES;
        let asked: SubscribeRequest =
            self.only_message(request, payload, call.protocol, max).await?;
        let turn = client.worker.turns.take(LONG_REQUEST_BYTES < asked.encoded_len()).await;
        let session = subscribe::open(&client, asked, header_id(request))?;
        drop(turn);
        Ok(call.answer(Records::new(session)))
    }

    /// Counts a request of a reader, and verifies its token.
    async fn admit(&self, request: &HttpRequest) -> Result<Client, Status> {
        let client = self.client(request)?;
        let grant = client.context.access.admit(request).await;
        client.grant.replace(grant.map_err(Refusal::from)?);
        Ok(client)
    }

    /// Counts a request of a client.
    fn client(&self, request: &HttpRequest) -> Result<Client, Status> {
        let context = self.context.clone();
        let address = client_address(request.head(), context.trusted_proxies);
        let (worker, publish, grant) =
            (self.worker.clone(), self.publish.clone(), RefCell::default());
        let client = Client { context, worker, publish, address, grant };
        client.count_request()?;
        Ok(client)
    }

    /// Receives the only message of a request, of at most `max` bytes. A body over HTTP/2 is not
    /// read further after a wrong prefix. A body over HTTP/1.1 is read to its end, so that its
    /// sender can read the answer; a body in base64 too, since it is decoded as a whole.
    async fn only_message<M: Message + Default>(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        protocol: Protocol,
        max: usize,
    ) -> Result<M, Status> {
        let size = (PREFIX_BYTES + max).div_ceil(3) * 4;
        let limits = BodyLimits { bytes: size, time: self.publish.body_timeout };
        if protocol == Protocol::WebText || request.version() < Version::HTTP_2 {
            let body = body::receive(payload.into_inner(), limits, &self.publish.in_flight).await?;
            return decode_only(protocol.decode(body.bytes.clone())?, max);
        }
        let (checked, refusal) = CheckedBody::new(payload, max);
        let payload: BoxedPayloadStream = Box::pin(checked);
        let received = body::receive(payload.into(), limits, &self.publish.in_flight).await;
        match refusal.take() {
            Some(status) => Err(status),
            None => decode_only(received?.bytes.clone(), max),
        }
    }
}

/// Answers with one message.
fn once(call: Call, message: &impl Message) -> HttpResponse {
    call.answer(Once(Some(encoded(message))))
}

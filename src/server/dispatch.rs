//! First step of each request: refuses bad ones, and sends pushes directly to the inlet. All other
//! requests go to the routes of the [`App`](actix_web::App). Pushes skip the router and its layers,
//! because these cost more than a push itself, and a gateway receives tens of thousands of pushes
//! each second.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{HttpMessage as _, Payload, Request, Response};
use actix_service::Service;
use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::ServiceResponse,
    http::ConnectionType,
    web,
};

use crate::{
    config::Mode,
    http::{cors, head_limits::HeadLimits, problem::problem},
    inlet::push::{self, PushEndpoint},
    net::connection::{Connection, REFUSED_METHOD},
};

/// Service of all requests of a worker.
#[derive(Debug)]
pub struct Dispatch<A> {
    /// Subcommand that started the gateway.
    pub mode: Mode,
    /// Limits of heads. They do not apply to pushes, whose heads hold the attributes of messages.
    pub head_limits: HeadLimits,
    /// State of the push endpoint.
    pub inlet: web::Data<PushEndpoint>,
    /// Service of the routes.
    pub app: A,
}

impl<A, B> Service<Request> for Dispatch<A>
where
    A: Service<Request, Response = ServiceResponse<B>, Error = Error>,
    A::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = Response<BoxBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The service of the routes is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let connection = Connection::of(request.conn_data(), &request.extensions());
        let answering = connection.as_ref().map(Connection::begin_request);
        let has_body = !matches!(request.payload(), Payload::None);
        let end = move |mut response: Response<BoxBody>| {
            drop(answering);
            // The body of a refused request may not have been read to its end. Its remaining bytes
            // are not the head of a next request, so the connection is closed.
            if has_body && response.status().as_u16() >= 400 {
                response.head_mut().set_connection_type(ConnectionType::Close);
            }
            Ok(response)
        };
        if let Some(refused) = refused_head(&request, connection.as_deref()) {
            return Box::pin(async move { end(refused.into()) });
        }
        if let Some(refusal) = cors::refusal(self.mode, request.head()) {
            return Box::pin(async move { end(refusal.into()) });
        }
        if push::is_push(request.head()) {
            let inlet = self.inlet.clone();
            return Box::pin(async move { end(push::push(request, &inlet).await.into()) });
        }
        if let Some(refusal) = self.head_limits.refusal(request.head()) {
            return Box::pin(async move { end(refusal.into()) });
        }
        let answer = self.app.call(request);
        Box::pin(async move {
            let response = answer.await.map_or_else(
                |err| HttpResponse::from_error(err).into(),
                |response| as_problem(response).into(),
            );
            end(response)
        })
    }
}

/// Returns a response, and an error of the router's layers, such as an `Origin` that the rules of
/// CORS refuse, as a problem document.
fn as_problem<B: MessageBody + 'static>(response: ServiceResponse<B>) -> HttpResponse {
    match response.response().error() {
        Some(err) => problem(response.status(), err.to_string()),
        None => response.into_parts().1.map_into_boxed_body(),
    }
}

/// Service of the requests of the ops listener: it refuses bad heads, and sends all else to the
/// routes.
#[derive(Debug)]
pub(super) struct OpsDispatch<A>(pub(super) A);

impl<A, B> Service<Request> for OpsDispatch<A>
where
    A: Service<Request, Response = ServiceResponse<B>, Error = Error>,
    A::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = Response<BoxBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, request: Request) -> Self::Future {
        let connection = Connection::of(request.conn_data(), &request.extensions());
        let answering = connection.as_ref().map(Connection::begin_request);
        if let Some(refused) = refused_head(&request, connection.as_deref()) {
            return Box::pin(async move { Ok(refused.into()) });
        }
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await.map_or_else(
                |err| HttpResponse::from_error(err).into(),
                |response| response.map_into_boxed_body().into(),
            );
            drop(answering);
            Ok(response)
        })
    }
}

/// Returns the answer to a request that stands for a head that no decoder may see.
fn refused_head(request: &Request, connection: Option<&Connection>) -> Option<HttpResponse> {
    let fault = connection?.refusal()?;
    let is_refused = request.method().as_str() == REFUSED_METHOD;
    is_refused.then(|| problem(fault.status(), fault.detail()))
}

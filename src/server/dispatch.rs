//! First step of each request: refuses bad ones, and sends pushes directly to the inlet. All other
//! requests go to the routes of the [`App`](actix_web::App). Pushes skip the router and its layers,
//! because these cost more than a push itself, and a gateway receives tens of thousands of pushes
//! each second.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{Request, Response};
use actix_service::Service;
use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::ServiceResponse,
    web,
};

use crate::{
    config::Mode,
    http::{cors, head_limits::HeadLimits, problem::problem},
    inlet::push::{self, PushEndpoint},
};

/// Service of all requests of a worker.
#[derive(Debug)]
pub(crate) struct Dispatch<A> {
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

    fn call(&self, request: Request) -> Self::Future {
        if let Some(refusal) = cors::refusal(self.mode, request.head()) {
            return Box::pin(async move { Ok(refusal.into()) });
        }
        if push::is_push(request.head()) {
            let inlet = self.inlet.clone();
            return Box::pin(async move { Ok(push::push(request, &inlet).await.into()) });
        }
        if let Some(refusal) = self.head_limits.refusal(request.head()) {
            return Box::pin(async move { Ok(refusal.into()) });
        }
        let answer = self.app.call(request);
        Box::pin(async move { Ok(response(answer.await)) })
    }
}

/// Service of the requests of the ops listener: it sends all of them to the routes.
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
        let answer = self.0.call(request);
        Box::pin(async move { Ok(response(answer.await)) })
    }
}

/// Returns the response of a route. An error of the router's layers, such as an `Origin` that the
/// rules of CORS refuse, becomes a problem document.
fn response<B: MessageBody + 'static>(
    answer: Result<ServiceResponse<B>, Error>,
) -> Response<BoxBody> {
    let response = match answer {
        Ok(response) => response,
        Err(err) => return HttpResponse::from_error(err).into(),
    };
    match response.response().error() {
        Some(err) => problem(response.status(), err.to_string()).into(),
        None => response.map_into_boxed_body().into(),
    }
}

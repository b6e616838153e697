//! `grpc.health.v1.Health`: health checks
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::web;
use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::{Instant, Interval, interval};

use super::{
    answer::{Ended, Messages},
    message::encoded,
    proto::health::{
        HealthCheckRequest, HealthCheckResponse, HealthListResponse,
        health_check_response::ServingStatus,
    },
    reflection::SERVICES,
    status::{Code, Status},
};
use crate::{
    model::control::{End, EndReason},
    outlet::client::Client,
    stream::{StreamContext, limits::StreamPermit, pending::Waiting},
};

/// Function that returns true while the gateway is ready for new requests.
pub(crate) struct Serving(pub Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

/// Time between two checks at the status that a client watches.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Serving {
    /// Returns the status of a service. The empty name stands for all services.
    fn status(&self, service: &str) -> ServingStatus {
        if !service.is_empty() && !SERVICES.contains(&service) {
            return ServingStatus::ServiceUnknown;
        }
        if (self.0)() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    /// Answers `Check`.
    ///
    /// # Errors
    /// Fails when there is no such service.
    pub(super) fn check(&self, asked: &HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
        match self.status(&asked.service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::new(Code::NotFound, "there is no such service here"))
            }
            status => Ok(response(status)),
        }
    }

    /// Answers `List`.
    pub(super) fn list(&self) -> HealthListResponse {
        let names = SERVICES.iter().copied().chain([""]);
        let statuses = names.map(|name| (name.to_owned(), response(self.status(name))));
        HealthListResponse { statuses: statuses.collect() }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Answer of `Watch`: a message at once, and one after each change.
pub(super) struct Watch {
    context: web::Data<StreamContext>,
    serving: web::Data<Serving>,
    service: String,
    last: Option<ServingStatus>,
    looks: Interval,
    end_at: Instant,
    /// The call counts as a stream of its client.
    _permit: Option<Box<StreamPermit>>,
    /// The process does not exit before the call is ended.
    _waiting: Waiting,
}

impl Watch {
    /// Starts to watch a service.
    ///
    /// # Errors
    /// Fails when the client has too many streams.
    pub(super) fn new(
        client: &Client,
        serving: web::Data<Serving>,
        asked: HealthCheckRequest,
    ) -> Result<Self, Status> {
        let context = client.context.clone();
        let permit = context.limits.try_acquire(client.address, None);
        let permit = permit.map_err(|reached| {
            let retry_ms = Some(End::refusal(EndReason::Busy, None).retry_ms);
            Status { retry_ms, ..Status::new(Code::ResourceExhausted, reached.to_string()) }
        })?;
        let age = context.stream_age_max.mul_f64(rand::rng().random_range(0.8..=1.0));
        Ok(Self {
            serving,
            service: asked.service,
            last: None,
            looks: interval(CHECK_INTERVAL),
            end_at: Instant::now() + age,
            _permit: permit,
            _waiting: Waiting::new(&context),
            context,
        })
    }

    /// Returns the reason to end the call.
    fn end_reason(&self) -> Option<EndReason> {
        if self.context.hub.draining().is_some() {
            return Some(EndReason::Draining);
        }
        (self.end_at <= Instant::now()).then_some(EndReason::MaxAge)
    }
}

impl Messages for Watch {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        loop {
            let status = self.serving.status(&self.service);
            if self.last.replace(status) != Some(status) {
                return Poll::Ready(Ok(encoded(&response(status))));
            }
            if let Some(reason) = self.end_reason() {
                return Poll::Ready(Err(Status::of_end(&End::of_stream(reason)).into()));
            }
            ready!(Pin::new(&mut self.looks).poll_tick(cx));
        }
    }
}

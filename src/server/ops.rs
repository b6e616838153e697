//! Ops listener: `/metrics`, `/healthz` and `/readyz` on a thread of its own, so that probes and
//! metrics are answered however busy the workers are.

use std::{io, net::TcpListener, rc::Rc, sync::Arc};

use actix_http::ServiceConfigBuilder;
use actix_server::Server;
use actix_service::{Service, ServiceFactory as _, boxed, fn_factory, fn_service, map_config};
use actix_web::{
    App,
    dev::AppConfig,
    http::KeepAlive,
    rt::{net::TcpStream, spawn},
    web,
};
use bytes::Bytes;

use crate::{
    config::Config,
    net::{
        heads::{HEADS_MAX_BYTES, HeadBudget},
        http1::{Http1, Peer},
        limiter::ConnectionLimiter,
        socket::{Socket, Transport},
        stall::StallDetector,
    },
    server::{
        components::Components,
        dispatch::OpsDispatch,
        health::{Gauges, Health, Readiness},
        routes::ops_routes,
    },
    telemetry::metrics::Metrics,
};

/// Largest number of connections. Probes and a scraper need a few.
const CONNECTIONS_MAX: usize = 256;

/// Parts of the listener, of which its thread makes its service.
struct Ops {
    config: Config,
    gauges: web::Data<Gauges>,
    readiness: web::Data<Readiness>,
    health: web::Data<Health>,
    metrics: Metrics,
}

/// Returns the server of the ops listener. It runs when it is polled.
pub(super) fn server(
    config: &Config,
    listener: TcpListener,
    components: &Components,
) -> io::Result<Server> {
    let ops = Arc::new(Ops {
        config: config.clone(),
        gauges: components.gauges.clone(),
        readiness: components.readiness.clone(),
        health: components.health.clone(),
        metrics: components.streams.metrics.clone(),
    });
    let server = Server::build()
        .workers(1)
        .disable_signals()
        .listen("ops", listener, move || {
            let ops = Arc::clone(&ops);
            boxed::factory(fn_factory(move || connections(Arc::clone(&ops))))
        })?
        .run();
    Ok(server)
}

/// Returns the service of the listener's connections.
async fn connections(
    ops: Arc<Ops>,
) -> Result<impl Service<TcpStream, Response = (), Error = ()>, ()> {
    let limit_reached = ops.metrics.limit("idle-connections-max");
    let limiter = ConnectionLimiter::new(0, CONNECTIONS_MAX, limit_reached);
    let stalls = StallDetector::new(ops.config.write_timeout);
    spawn(Rc::clone(&stalls).run());
    let app = App::new()
        .app_data(ops.gauges.clone())
        .app_data(ops.readiness.clone())
        .app_data(ops.health.clone())
        .configure(ops_routes);
    let app = map_config(app, |()| AppConfig::default()).new_service(()).await?;
    let http1 = Rc::new(Http1 {
        dispatch: Rc::new(OpsDispatch(app)),
        config: ServiceConfigBuilder::new().keep_alive(KeepAlive::Os).build(),
        header_timeout: ops.config.header_timeout,
        slow_heads: ops.metrics.limit("header-timeout"),
        may_take_over: |_| false,
        may_wait: |_| false,
        heads: HeadBudget::new(HEADS_MAX_BYTES, ops.metrics.limit("head-bytes-max")),
    });
    let service = fn_service(move |io: TcpStream| {
        let peer = Box::new(Peer { address: io.peer_addr().ok(), counted: None });
        let socket = Socket::new(Transport::Plain(io), &stalls);
        let (http1, permit) = (Rc::clone(&http1), limiter.try_acquire());
        Box::pin(async move {
            if let Some(permit) = permit {
                http1.serve(socket, Bytes::new(), peer, permit).await;
            }
            Ok(())
        })
    });
    service.new_service(()).await
}

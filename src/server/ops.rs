//! Ops listener: `/metrics`, `/healthz` and `/readyz` on a thread of its own, so that probes and
//! metrics are answered however busy the workers are.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
};

use actix_server::Server;
use actix_service::{Service, ServiceFactory as _, boxed, fn_factory, fn_service, map_config};
use actix_web::{
    App,
    dev::AppConfig,
    rt::{net::TcpStream, spawn},
    web,
};
use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::{
    config::Config,
    net::{
        connection::{ConnectionLimiter, HEADS_MAX_BYTES, HeadBudget, Socket, Transport},
        reaper::{ConnectionLimits, Reaper},
    },
    server::{
        actix::{actix, log_failure},
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
    address: SocketAddr,
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
        address: listener.local_addr()?,
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

/// Returns the service of the listener's connections. Heads are checked before actix' decoder sees
/// them, which panics at a field name of 64 KiB.
async fn connections(
    ops: Arc<Ops>,
) -> Result<impl Service<TcpStream, Response = (), Error = ()>, ()> {
    let limit_reached = ops.metrics.limit("idle-connections-max");
    let limiter = ConnectionLimiter::new(0, CONNECTIONS_MAX, limit_reached);
    let reaper = Rc::new(Reaper::new(ConnectionLimits {
        header_timeout: ops.config.header_timeout,
        slow_heads: ops.metrics.limit("header-timeout"),
        limiter: Rc::clone(&limiter),
    }));
    spawn(Rc::clone(&reaper).run(ops.config.write_timeout));
    let heads = HeadBudget::new(HEADS_MAX_BYTES, ops.metrics.limit("head-bytes-max"));
    let app = App::new()
        .app_data(ops.gauges.clone())
        .app_data(ops.readiness.clone())
        .app_data(ops.health.clone())
        .configure(ops_routes);
    let app = map_config(app, |()| AppConfig::default()).new_service(()).await?;
    let http1 = actix(ops.address, &Rc::new(OpsDispatch(app))).await?;
    let service = fn_service(move |io: TcpStream| {
        let peer = io.peer_addr().ok();
        let socket = limiter
            .try_acquire(0)
            .map(|permit| Socket::new(Transport::Plain(io), Bytes::new(), false, &heads, permit));
        let (http1, reaper) = (Rc::clone(&http1), Rc::clone(&reaper));
        async move {
            let Some(socket) = socket else { return Ok(()) };
            reaper.add(socket.connection());
            http1.call((socket, peer)).map(log_failure).await;
            Ok(())
        }
    });
    service.new_service(()).await
}

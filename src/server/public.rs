//! The public listener: what each of its workers has, and what becomes of a connection.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_http::{Extensions, HttpService, Request, Response};
use actix_server::Server;
use actix_service::{Service, ServiceFactory as _, boxed, fn_factory, fn_service, map_config};
use actix_web::{
    App,
    body::BoxBody,
    dev::AppConfig,
    http::KeepAlive,
    rt::{net::TcpStream, spawn},
    web,
};
use actix_web_lab::middleware::CatchPanic;
use rustls::ServerConfig;

use super::{parts::Parts, routes::public_routes};
use crate::{
    accept::Acceptor,
    address::network,
    config::Config,
    connection::{Connection, Socket},
    counts::Counts,
    front::Front,
    guard::HeadLimits,
    http2::Http2,
    hub::Hub,
    inlet::push::Inlet,
    metrics::Metrics,
    ops::Readiness,
    outlet::{Outlet, sse::Worker},
    proxy_protocol::ProxyProtocol,
    watch::{ConnectionLimits, StallWatch},
};

/// What every worker is made from.
struct Public {
    config: Config,
    address: SocketAddr,
    acceptor: Acceptor,
    hub: Hub,
    inlet: web::Data<Inlet>,
    outlet: web::Data<Outlet>,
    readiness: web::Data<Readiness>,
    metrics: Metrics,
    by_address: Arc<Counts<IpAddr>>,
}

/// The public listener's server. It runs when it is polled.
pub(super) fn server(
    config: &Config,
    tls: Option<Arc<ServerConfig>>,
    listener: TcpListener,
    parts: &Parts,
) -> io::Result<Server> {
    let metrics = parts.outlet.metrics.clone();
    let refused = &metrics.proxy_refused;
    let proxy_protocol = config.proxy_protocol.then(|| ProxyProtocol::new(refused.clone()));
    let silent = metrics.limit("hello-time");
    let public = Arc::new(Public {
        config: config.clone(),
        address: listener.local_addr()?,
        acceptor: Acceptor::new(tls, proxy_protocol, config.stall, config.hello_time, silent),
        hub: parts.hub.clone(),
        inlet: parts.inlet.clone(),
        outlet: parts.outlet.clone(),
        readiness: parts.readiness.clone(),
        metrics,
        by_address: Counts::new(config.connections_per_address),
    });
    let server = Server::build()
        .workers(config.workers)
        .max_concurrent_connections(
            // Of each worker; connections are spread over them in turn.
            config.subscribers_max.div_ceil(config.workers) + config.connections_beside_streams,
        )
        .disable_signals()
        // Called once on each worker's thread.
        .listen("public", listener, move || {
            let public = Arc::clone(&public);
            boxed::factory(fn_factory(move || connections(Arc::clone(&public))))
        })?
        .run();
    Ok(server)
}

/// A worker: what it has for as long as it runs, and how it serves a connection.
async fn connections(
    public: Arc<Public>,
) -> Result<impl Service<TcpStream, Response = (), Error = ()>, ()> {
    let config = &public.config;
    let stall_watch = Rc::new(StallWatch::new(ConnectionLimits {
        head_time: config.head_time,
        slow_heads: public.metrics.limit("head-time"),
        beside_streams: config.connections_beside_streams,
        crowded_out: public.metrics.limit("connections-beside-streams"),
    }));
    let worker = Worker { shard: public.hub.add_shard(), stall_watch: Rc::clone(&stall_watch) };
    spawn(Rc::clone(&worker.shard).run(config.join_max));
    spawn(Rc::clone(&worker.stall_watch).run(config.stall));
    let front = Rc::new(front(Arc::clone(&public), worker).await?);
    let http1 = HttpService::build()
        // No timers for each request: `StallWatch` closes idle connections, and slow ones.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        // A reader's FIN must end its stream at once: it is how a closed tab looks.
        .h1_allow_half_closed(false)
        .local_addr(public.address)
        .on_connect_ext(move |socket: &Socket, data: &mut Extensions| {
            data.insert::<Rc<Connection>>(Rc::clone(socket.connection()));
        })
        .h1(fn_factory({
            let front = Rc::clone(&front);
            move || std::future::ready(Ok::<_, ()>(Rc::clone(&front)))
        }));
    let http1 = Rc::new(http1.new_service(()).await?);
    let http2 = Rc::new(Http2 {
        streams_max: config.http2_streams_max,
        full: public.metrics.limit("http2-streams-max"),
        stall: config.stall,
        hub: public.hub.clone(),
    });
    // Boxed, each: a connection's task keeps the room for whatever it ever is, such as a TLS
    // handshake, and has each future that is in line in it twice (where it was moved from and to).
    let service = fn_service(move |io| {
        let accepted = Box::pin(public.acceptor.clone().accept(io));
        let (http1, http2, front) = (Rc::clone(&http1), Rc::clone(&http2), Rc::clone(&front));
        let (public, stall_watch) = (Arc::clone(&public), Rc::clone(&stall_watch));
        Box::pin(async move {
            let (socket, peer) = match accepted.await {
                Ok(accepted) => accepted,
                Err(err) => {
                    tracing::debug!(error = %err, "connection not accepted");
                    return Ok(());
                }
            };
            let Ok(_counted) = public.by_address.one_more(peer.map(|peer| network(peer.ip())))
            else {
                public.metrics.limit("connections-per-address").inc();
                return Ok(());
            };
            stall_watch.add(socket.connection());
            let ended = if socket.connection().is_http2 {
                Box::pin(http2.serve(socket, peer, &front)).await.map_err(|err| err.to_string())
            } else {
                http1.call((socket, peer)).await.map_err(|err| err.to_string())
            };
            if let Err(error) = ended {
                tracing::debug!(error, "connection failed");
            }
            Ok(())
        })
    });
    service.new_service(()).await
}

/// What answers requests, over whichever protocol they come.
async fn front(
    public: Arc<Public>,
    worker: Worker,
) -> Result<impl Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static, ()> {
    let config = &public.config;
    let app = App::new()
        .app_data(public.outlet.clone())
        .app_data(public.readiness.clone())
        .app_data(web::Data::new(worker))
        .wrap(CatchPanic::default())
        .configure(public_routes(config.mode, &config.cors_origins));
    let head_limits = HeadLimits {
        bytes: config.head_bytes_max,
        query_bytes: config.query_bytes_max,
        bytes_met: public.metrics.limit("head-bytes-max"),
        query_met: public.metrics.limit("query-bytes-max"),
    };
    let (mode, inlet) = (config.mode, public.inlet.clone());
    let app = map_config(app, |()| AppConfig::default()).new_service(()).await?;
    Ok(Front { mode, head_limits, inlet, app })
}

//! Workers of the public listener: the state of a worker, and the steps in which it serves a
//! connection.

use std::{
    cell::OnceCell,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use actix_http::{Request, Response, ServiceConfigBuilder};
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
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rustls::ServerConfig;

use crate::server::{
    actix::{actix, log_failure},
    components::Components,
    routes::{may_take_over, public_routes},
};
use crate::{
    config::Config,
    http::{client_address::network, head_limits::HeadLimits},
    hub::Hub,
    inlet::push::PushEndpoint,
    limits::concurrency::ConcurrencyLimit,
    net::{
        accept::{Accepted, Acceptor},
        connection::{ConnectionLimiter, HEADS_MAX_BYTES, HeadBudget, Socket, Transport},
        http1::{HandedOver, Http1, Peer},
        http2::Http2,
        proxy_protocol::ProxyProtocol,
        reaper::{ConnectionLimits, Reaper},
    },
    outlet::events::Worker,
    server::{
        api::Documents,
        dispatch::Dispatch,
        health::{Health, Readiness},
    },
    stream::{StreamContext, drive::reactor::Reactor},
    telemetry::metrics::Metrics,
};

/// Parts from which each worker is made.
struct Public {
    /// Configuration of the gateway.
    config: Config,
    /// Address of the listener.
    address: SocketAddr,
    /// Acceptor of connections: PROXY header, TLS and first bytes.
    acceptor: Acceptor,
    /// Handle to the hub.
    hub: Hub,
    inlet: web::Data<PushEndpoint>,
    /// State of the handlers of streams and tickets.
    streams: web::Data<StreamContext>,
    /// Answer to `/readyz`.
    readiness: web::Data<Readiness>,
    /// Answer to `/healthz`, and the workers' heartbeats.
    health: web::Data<Health>,
    /// Answers to `/openapi.json` and `/asyncapi.json`.
    documents: web::Data<Documents>,
    /// Metrics of the gateway.
    metrics: Metrics,
    /// Limit of connections by address (`--connections-per-address`).
    by_address: Arc<ConcurrencyLimit<IpAddr>>,
    /// Memory for heads of requests being received, for all workers together.
    heads: HeadBudget,
}

/// Makes the server of the public listener. It runs while it is polled.
pub(super) fn server(
    config: &Config,
    tls: Option<Arc<ServerConfig>>,
    listener: TcpListener,
    components: &Components,
) -> io::Result<Server> {
    let metrics = components.streams.metrics.clone();
    let refused = &metrics.proxy_refused;
    let proxy_protocol = config.proxy_protocol.then(|| ProxyProtocol::new(refused.clone()));
    let silent = metrics.limit("handshake-timeout");
    let heads = HeadBudget::new(HEADS_MAX_BYTES, metrics.limit("head-bytes-max"));
    let public = Arc::new(Public {
        heads,
        config: config.clone(),
        address: listener.local_addr()?,
        acceptor: Acceptor::new(
            tls,
            proxy_protocol,
            config.write_timeout,
            config.handshake_timeout,
            silent,
        ),
        hub: components.hub.clone(),
        inlet: components.inlet.clone(),
        streams: components.streams.clone(),
        readiness: components.readiness.clone(),
        health: components.health.clone(),
        documents: components.documents.clone(),
        metrics,
        by_address: ConcurrencyLimit::new(config.connections_per_address),
    });
    let server = Server::build()
        .workers(config.workers)
        .max_concurrent_connections(connections_max(config))
        .disable_signals()
        // The closure runs once on each worker's thread.
        .listen("public", listener, move || {
            let public = Arc::clone(&public);
            boxed::factory(fn_factory(move || connections(Arc::clone(&public))))
        })?
        .run();
    Ok(server)
}

/// Returns the largest number of connections of each worker. Workers get connections in turn.
fn connections_max(config: &Config) -> usize {
    streams_max(config) + config.idle_connections_max
}

/// Returns the largest number of streams of each worker: its share of all streams.
fn streams_max(config: &Config) -> usize {
    config.subscribers_max.div_ceil(config.workers)
}

/// Starts a worker: makes its state and its tasks, and returns the service of its connections.
async fn connections(
    public: Arc<Public>,
) -> Result<impl Service<TcpStream, Response = (), Error = ()>, ()> {
    let config = &public.config;
    let limiter = limiter(&public);
    let reaper = Rc::new(Reaper::new(ConnectionLimits {
        header_timeout: config.header_timeout,
        slow_heads: public.metrics.limit("header-timeout"),
        limiter: Rc::clone(&limiter),
    }));
    let serve_again = Rc::<OnceCell<ServeAgain>>::default();
    let reactor = reactor(config, Rc::clone(&serve_again))?;
    let worker = Worker::new(public.hub.add_shard(), Rc::clone(&reaper), Rc::clone(&reactor));
    spawn(public.health.heartbeats().add(Instant::now()).run());
    spawn(Rc::clone(&worker.shard).run(config.coalesce_max));
    spawn(Rc::clone(&worker.reaper).run(config.write_timeout));
    let dispatch = Rc::new(dispatch(Arc::clone(&public), worker).await?);
    let actix = actix(public.address, &dispatch).await?;
    let http2 = Rc::new(http2(&public, Rc::clone(&limiter)));
    let http1 = own_http1(&public, &dispatch, limiter, reactor, {
        let (actix, reaper) = (Rc::clone(&actix), Rc::clone(&reaper));
        let heads = public.heads.clone();
        move |HandedOver { io, ahead, peer, permit }| {
            let socket = Socket::new(Transport::Plain(io), ahead, false, &heads, permit);
            reaper.add(socket.connection());
            Box::pin(actix.call((socket, peer)).map(log_failure))
        }
    });
    serve_finished(&http1, &serve_again);
    // Each future is boxed. A connection's task keeps the memory of its largest state, such as a
    // TLS handshake, for its whole life; and it holds an unboxed future twice, where it was moved
    // from and where it was moved to.
    let service = fn_service(move |io| {
        let accepted = Box::pin(public.acceptor.clone().accept(io));
        let (actix, http1, http2) = (Rc::clone(&actix), Rc::clone(&http1), Rc::clone(&http2));
        let (dispatch, public, watch) =
            (Rc::clone(&dispatch), Arc::clone(&public), Rc::clone(&reaper));
        Box::pin(async move {
            let Accepted { transport, ahead, is_http2, peer } = match accepted.await {
                Ok(accepted) => accepted,
                Err(err) => {
                    tracing::debug!(error = %err, "a connection was not accepted");
                    return Ok(());
                }
            };
            let Ok(counted) = public.by_address.try_acquire(peer.map(|peer| network(peer.ip())))
            else {
                public.metrics.limit("connections-per-address").inc();
                return Ok(());
            };
            let Some(permit) = http1.try_acquire() else { return Ok(()) };
            let transport = match transport {
                Transport::Plain(io) if !is_http2 && public.config.direct_streams => {
                    let peer = Box::new(Peer { address: peer, counted });
                    Box::pin(http1.serve(io, ahead, peer, permit)).await;
                    return Ok(());
                }
                transport => transport,
            };
            let socket = Socket::new(transport, ahead, is_http2, &public.heads, permit);
            watch.add(socket.connection());
            if is_http2 {
                log_failure(Box::pin(http2.serve(socket, peer, &dispatch)).await);
            } else {
                log_failure(actix.call((socket, peer)).await);
            }
            drop(counted);
            Ok(())
        })
    });
    service.new_service(()).await
}

/// Makes the limit of a worker's connections.
fn limiter(public: &Public) -> Rc<ConnectionLimiter> {
    ConnectionLimiter::new(
        streams_max(&public.config),
        public.config.idle_connections_max,
        public.metrics.limit("idle-connections-max"),
    )
}

/// Makes the HTTP/2 server.
fn http2(public: &Public, limiter: Rc<ConnectionLimiter>) -> Http2 {
    Http2 {
        streams_max: public.config.http2_streams_max,
        full: public.metrics.limit("http2-streams-max"),
        write_timeout: public.config.write_timeout,
        hub: public.hub.clone(),
        limiter,
    }
}

/// Function that serves a connection again after its stream has ended.
type ServeAgain = Box<dyn Fn(TcpStream, Box<Peer>)>;

/// Starts the reactor of a worker. It gives connections whose streams have ended to `serve_again`.
fn reactor(config: &Config, serve_again: Rc<OnceCell<ServeAgain>>) -> Result<Rc<Reactor>, ()> {
    let reactor = Reactor::new(config.write_timeout, move |io, peer| {
        let new_peer = || Box::new(Peer { address: io.peer_addr().ok(), counted: None });
        let peer = peer.unwrap_or_else(new_peer);
        if let (Some(serve_again), Ok(io)) = (serve_again.get(), TcpStream::from_std(io)) {
            serve_again(io, peer);
        }
    });
    let reactor = reactor.map_err(
        |err| tracing::error!(error = %err, "cannot create the worker's epoll instance"),
    )?;
    spawn(Rc::clone(&reactor).run());
    Ok(reactor)
}

/// Has `http1` serve connections whose streams have ended.
fn serve_finished<S>(http1: &Rc<Http1<S>>, serve_again: &OnceCell<ServeAgain>)
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let weak = Rc::downgrade(http1);
    let _first = serve_again.set(Box::new(move |io, peer| {
        if let Some(http1) = weak.upgrade() {
            spawn(http1.serve_again(io, peer));
        }
    }));
}

/// Makes the gateway's own HTTP/1.1 service, for clear text. It hands connections with unusual
/// requests over to `actix`.
fn own_http1<S>(
    public: &Public,
    dispatch: &Rc<S>,
    limiter: Rc<ConnectionLimiter>,
    reactor: Rc<Reactor>,
    actix: impl Fn(HandedOver) -> LocalBoxFuture<'static, ()> + 'static,
) -> Rc<Http1<S>>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let config = &public.config;
    Rc::new(Http1 {
        dispatch: Rc::clone(dispatch),
        config: ServiceConfigBuilder::new().keep_alive(KeepAlive::Os).build(),
        header_timeout: config.header_timeout,
        slow_heads: public.metrics.limit("header-timeout"),
        write_timeout: config.write_timeout,
        may_take_over,
        taken_over: Box::new(move || reactor.streams()),
        heads: public.heads.clone(),
        actix: Box::new(actix),
        limiter,
    })
}

/// Makes the service of a worker's requests, for all protocols.
async fn dispatch(
    public: Arc<Public>,
    worker: Worker,
) -> Result<impl Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static, ()> {
    let config = &public.config;
    let app = App::new()
        .app_data(public.streams.clone())
        .app_data(public.readiness.clone())
        .app_data(public.health.clone())
        .app_data(public.documents.clone())
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
    Ok(Dispatch { mode, head_limits, inlet, app })
}

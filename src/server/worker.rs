//! Workers of the public listener: the state of a worker, and the steps in which it serves a
//! connection.

use std::{
    cell::OnceCell,
    convert::Infallible,
    io,
    net::{IpAddr, TcpListener},
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
use futures_util::future::LocalBoxFuture;
use rustls::ServerConfig;

use crate::server::{
    components::Components,
    routes::{has_trailers, may_take_over, may_tunnel, may_wait, public_routes},
};
use crate::{
    config::{Config, Mode, PublishAuth},
    http::{client_address::network, cors::Pages, head_limits::HeadLimits},
    hub::Hub,
    inlet::{publish::PublishEndpoint, push::PushEndpoint},
    limits::concurrency::ConcurrencyLimit,
    net::{
        accept::{Accepted, Acceptor},
        heads::{HEADS_MAX_BYTES, HeadBudget},
        http1::{Http1, Peer},
        http2::Http2,
        limiter::{ConnectionLimiter, ConnectionPermit},
        proxy_protocol::ProxyProtocol,
        socket::{Socket, Transport},
        stall::StallDetector,
    },
    outlet::{events::Worker, grpc::Serving, page::overview::PageSettings},
    server::{
        api::Documents,
        dispatch::Dispatch,
        health::{Health, Readiness},
    },
    stream::{
        StreamContext,
        drive::reactor::{Reactor, owner::Finished},
    },
    telemetry::metrics::Metrics,
};

/// Parts from which each worker is made.
struct Public {
    /// Configuration of the gateway.
    config: Config,
    /// Acceptor of connections: PROXY header, TLS and first bytes.
    acceptor: Acceptor,
    /// Handle to the hub.
    hub: Hub,
    inlet: web::Data<PushEndpoint>,
    publish: web::Data<PublishEndpoint>,
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
        acceptor: Acceptor::new(tls, proxy_protocol, config.handshake_timeout, silent),
        hub: components.hub.clone(),
        inlet: components.inlet.clone(),
        publish: components.publish.clone(),
        streams: components.streams.clone(),
        readiness: components.readiness.clone(),
        health: components.health.clone(),
        documents: components.documents.clone(),
        metrics,
        by_address: ConcurrencyLimit::new(config.connections_per_address),
    });
    let server = Server::build()
        .workers(config.workers)
        // At this number the server accepts no more, so that new connections wait while idle ones
        // are closed. It does not see the sockets of the reactor: the limiter of each worker counts
        // these too, and closes what is above the limit.
        .max_concurrent_connections(streams_max(config) + config.idle_connections_max)
        .disable_signals()
        // The closure runs once on each worker's thread.
        .listen("public", listener, move || {
            let public = Arc::clone(&public);
            boxed::factory(fn_factory(move || connections(Arc::clone(&public))))
        })?
        .run();
    Ok(server)
}

/// Returns the largest number of streams of each worker: its share of all streams. Workers get
/// connections in turn.
fn streams_max(config: &Config) -> usize {
    config.subscribers_max.div_ceil(config.workers)
}

/// Starts a worker: makes its state and its tasks, and returns the service of its connections.
async fn connections(
    public: Arc<Public>,
) -> Result<impl Service<TcpStream, Response = (), Error = ()>, ()> {
    let config = &public.config;
    let limiter = limiter(&public);
    let stalls = StallDetector::new(config.write_timeout);
    let serve_again = Rc::<OnceCell<ServeAgain>>::default();
    let reactor = reactor(Rc::clone(&stalls), Rc::clone(&serve_again))?;
    let worker = Worker::new(public.hub.add_shard(), reactor);
    spawn(public.health.heartbeats().add(Instant::now()).run());
    spawn(Rc::clone(&worker.shard).run(config.coalesce_max));
    spawn(Rc::clone(&stalls).run());
    let dispatch = Rc::new(dispatch(Arc::clone(&public), worker).await?);
    let http1 = Rc::new(http1(&public, Rc::clone(&dispatch)));
    let http2 = Rc::new(http2(&public, Rc::clone(&limiter), Rc::clone(&stalls)));
    serve_finished(&http1, &stalls, &serve_again);
    let servers = Rc::new(Servers { public, limiter, stalls, http1, http2, dispatch });
    // The steps of a connection are futures of their own, in boxes: its task keeps the memory of
    // its largest state, such as a TLS handshake, for its whole life.
    let service = fn_service(move |io| {
        let accepted = Box::pin(Rc::clone(&servers).accept(io));
        Box::pin(async move {
            let served = accepted.await;
            if let Some(served) = served {
                served.await;
            }
            Ok(())
        })
    });
    service.new_service(()).await
}

/// Servers of a worker, and what they share.
struct Servers<S> {
    public: Arc<Public>,
    limiter: Rc<ConnectionLimiter>,
    stalls: Rc<StallDetector>,
    http1: Rc<Http1<S>>,
    http2: Rc<Http2>,
    dispatch: Rc<S>,
}

impl<S> Servers<S>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    /// Accepts a connection. Returns the future that serves it, or `None` if it is closed. A
    /// connection counts from its first byte on: without that, handshakes would have no limit.
    async fn accept(self: Rc<Self>, io: TcpStream) -> Option<LocalBoxFuture<'static, ()>> {
        let permit = self.limiter.try_acquire()?;
        let accepted = self.public.acceptor.clone().accept(io).await;
        let Accepted { transport, ahead, is_http2, peer } = accepted
            .inspect_err(|err| tracing::debug!(error = %err, "a connection was not accepted"))
            .ok()?;
        let address = peer.map(|peer| network(peer.ip()));
        let Ok(counted) = self.public.by_address.try_acquire(address) else {
            self.public.metrics.limit("connections-per-address").inc();
            return None;
        };
        let peer = Box::new(Peer { address: peer, counted });
        let socket = Socket::new(transport, &self.stalls);
        if !is_http2 {
            return Some(Box::pin(Rc::clone(&self.http1).serve(socket, ahead, peer, permit)));
        }
        Some(Box::pin(async move {
            let served = self.http2.serve(socket, ahead, peer, permit, &self.dispatch).await;
            if let Err(err) = served {
                // Clients cause most of these errors, so the level is debug.
                tracing::debug!(error = %err, "an HTTP/2 connection failed");
            }
        }))
    }
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
fn http2(public: &Public, limiter: Rc<ConnectionLimiter>, stalls: Rc<StallDetector>) -> Http2 {
    Http2 {
        streams_max: public.config.http2_streams_max,
        full: public.metrics.limit("http2-streams-max"),
        stalls,
        heads: public.heads.clone(),
        header_timeout: public.config.header_timeout,
        slow_heads: public.metrics.limit("header-timeout"),
        hub: public.hub.clone(),
        limiter,
        may_tunnel,
        has_trailers,
    }
}

/// Function that serves a connection again after its stream has ended.
type ServeAgain = Box<dyn Fn(TcpStream, Box<Peer>, ConnectionPermit)>;

/// Starts the reactor of a worker. It gives connections whose streams have ended to `serve_again`.
fn reactor(
    stalls: Rc<StallDetector>,
    serve_again: Rc<OnceCell<ServeAgain>>,
) -> Result<Rc<Reactor>, ()> {
    let reactor = Reactor::new(stalls, move |Finished { io, peer, permit }| {
        let new_peer = || Box::new(Peer { address: io.peer_addr().ok(), counted: None });
        let peer = peer.unwrap_or_else(new_peer);
        if let (Some(serve_again), Ok(io)) = (serve_again.get(), TcpStream::from_std(io)) {
            serve_again(io, peer, permit);
        }
    });
    let reactor = reactor.map_err(
        |err| tracing::error!(error = %err, "cannot create the worker's epoll instance"),
    )?;
    spawn(Rc::clone(&reactor).run());
    Ok(reactor)
}

/// Has `http1` serve connections whose streams have ended.
fn serve_finished<S>(
    http1: &Rc<Http1<S>>,
    stalls: &Rc<StallDetector>,
    serve_again: &OnceCell<ServeAgain>,
) where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let (weak, stalls) = (Rc::downgrade(http1), Rc::clone(stalls));
    let _first = serve_again.set(Box::new(move |io, peer, permit| {
        if let Some(http1) = weak.upgrade() {
            spawn(http1.serve_again(Socket::new(Transport::Plain(io), &stalls), peer, permit));
        }
    }));
}

/// Makes the HTTP/1.1 server.
fn http1<S>(public: &Public, dispatch: Rc<S>) -> Http1<S> {
    Http1 {
        dispatch,
        config: ServiceConfigBuilder::new().keep_alive(KeepAlive::Os).build(),
        header_timeout: public.config.header_timeout,
        slow_heads: public.metrics.limit("header-timeout"),
        may_take_over,
        may_wait,
        heads: public.heads.clone(),
    }
}

/// Returns the settings of the page. Its form sends no token, and is for trials only.
fn page_settings(config: &Config) -> PageSettings {
    let is_open = matches!(config.publish_auth, PublishAuth::None);
    PageSettings { can_publish: config.mode == Mode::Dev && is_open }
}

/// Makes the service of a worker's requests, for all protocols.
async fn dispatch(
    public: Arc<Public>,
    worker: Worker,
) -> Result<impl Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static, ()> {
    let config = &public.config;
    let pages = Pages { mode: config.mode, origins: config.cors_origins.clone() };
    let readiness = public.readiness.clone();
    let serving = Serving(Box::new(move || readiness.unready().is_none()));
    let app = App::new()
        .app_data(public.streams.clone())
        .app_data(public.publish.clone())
        .app_data(public.readiness.clone())
        .app_data(public.health.clone())
        .app_data(public.documents.clone())
        .app_data(web::Data::new(worker))
        .app_data(web::Data::new(pages))
        .app_data(web::Data::new(serving))
        .app_data(web::Data::new(page_settings(config)))
        .wrap(CatchPanic::default())
        .configure(public_routes(config));
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

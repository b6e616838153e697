//! Runs the gateway: its listeners, its workers, and the order of shutdown in one place.

mod parts;
mod routes;

use std::{
    io,
    net::TcpListener,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix_http::HttpService;
use actix_service::{
    ServiceFactory as _, ServiceFactoryExt as _, boxed, fn_factory, fn_service, map_config,
};
use actix_web::{
    App, HttpServer,
    dev::{AppConfig, Server},
    http::KeepAlive,
    web,
};
use actix_web_lab::middleware::CatchPanic;
use parts::Parts;
use routes::{ops_routes, public_routes};
use rustls::ServerConfig;
use socket2::{Domain, Socket as Socket2, Type};

use crate::{
    accept::Acceptor,
    clock,
    config::Config,
    connection::{Connection, HEAD_MAX, Socket},
    front::Front,
    hub::Hub,
    outlet::sse::Worker,
    watch::StallWatch,
};

/// Sockets that listen already, so that nothing can fail between being told the port and using it.
#[derive(Debug)]
pub struct Listeners {
    pub public: TcpListener,
    pub ops: Option<TcpListener>,
}

impl Listeners {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// With the address that cannot be had.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let bind = |address: std::net::SocketAddr| {
            listen(address).map_err(|err| {
                io::Error::new(err.kind(), format!("cannot listen on {address}: {err}"))
            })
        };
        Ok(Self { public: bind(config.listen)?, ops: config.ops_listen.map(bind).transpose()? })
    }
}

fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait until the old connections are forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that wait to be accepted. When a proxy dies, all of its readers come at once; the
/// standard library's 128 would make most of them wait for a retry of a second or more. (The kernel
/// cuts it to `somaxconn`, 4,096 by default.)
const BACKLOG: i32 = 4_096;
/// Connections beside streams: pushes, probes, and streams that are just being opened.
pub const CONNECTIONS_BESIDE_STREAMS: usize = 4_096;
/// After the drain, for the last blocks to leave and for what is left to be closed by force.
const FLUSH: Duration = Duration::from_millis(400);
/// How often shutdown looks whether everyone has left.
const LEAVING_TICK: Duration = Duration::from_millis(20);

/// Runs until `shutdown`, then leaves in order: unready at once; served as before for
/// `--drain-delay`; streams end over `--drain`; what is left is closed.
///
/// # Errors
/// When it cannot be started.
pub async fn run(
    config: Config,
    tls: Option<Arc<ServerConfig>>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut parts = Parts::new(&config).map_err(io::Error::other)?;
    let public = public_server(&config, tls, listeners.public, &parts)?;
    let ops = listeners.ops.map(|listener| ops_server(listener, &parts)).transpose()?;
    let handles: Vec<_> = ops.iter().chain([&public]).map(Server::handle).collect();
    let servers: Vec<_> = ops.into_iter().chain([public]).map(tokio::spawn).collect();
    parts.tasks.spawn(sweep(parts.hub.clone()));

    let mut tasks = std::mem::take(&mut parts.tasks);
    tokio::select! {
        () = shutdown => {}
        ended = tasks.join_next() => {
            return Err(io::Error::other(format!("a task that never ends did: {ended:?}")));
        }
    }
    leave(&config, &parts).await;
    let stopped = async {
        for handle in handles {
            handle.stop(false).await;
        }
        for server in servers {
            if let Ok(Err(err)) = server.await {
                tracing::error!(error = %err, "server");
            }
        }
    };
    if tokio::time::timeout(FLUSH, stopped).await.is_err() {
        tracing::warn!("workers did not stop in time");
    }
    Ok(())
}

async fn leave(config: &Config, parts: &Parts) {
    let streams = parts.hub.subscribers();
    tracing::info!(streams, delay = ?config.drain_delay, drain = ?config.drain, "leaving");
    parts.readiness.leave();
    tokio::time::sleep(config.drain_delay).await;
    parts.hub.drain(config.drain);
    let end = Instant::now() + config.drain + FLUSH / 2;
    let busy = || {
        let streams = parts.hub.subscribers() + parts.outlet.opening.load(Ordering::SeqCst);
        0 < streams + parts.in_flight.pushes()
    };
    while busy() && Instant::now() < end {
        tokio::time::sleep(LEAVING_TICK).await;
    }
    // The last answers are on their way from another thread.
    tokio::time::sleep(LEAVING_TICK).await;
    tracing::info!(streams_cut = parts.hub.subscribers(), "left");
}

async fn sweep(hub: Hub) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        hub.sweep(clock::now_ms());
    }
}

fn public_server(
    config: &Config,
    tls: Option<Arc<ServerConfig>>,
    listener: TcpListener,
    parts: &Parts,
) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let acceptor = Acceptor::new(tls, config.stall);
    let (mode, stall, join_max) = (config.mode, config.stall, config.join_max);
    let (hub, inlet, outlet) = (parts.hub.clone(), parts.inlet.clone(), parts.outlet.clone());
    let readiness = parts.readiness.clone();
    let origins = config.cors_origins.clone();
    // Called once on each worker's thread.
    let service = move || {
        let stall_watch = Rc::new(StallWatch::default());
        let worker = Worker { shard: hub.add_shard(), stall_watch: Rc::clone(&stall_watch) };
        actix_web::rt::spawn(Rc::clone(&worker.shard).run(join_max));
        actix_web::rt::spawn(Rc::clone(&worker.stall_watch).run(stall));
        let app = App::new()
            .app_data(outlet.clone())
            .app_data(readiness.clone())
            .app_data(web::Data::new(worker))
            .wrap(CatchPanic::default())
            .configure(public_routes(mode, &origins));
        let (app, inlet) = (map_config(app, |()| AppConfig::default()), inlet.clone());
        let front = fn_factory(move || {
            let (app, inlet) = (app.new_service(()), inlet.clone());
            async move { Ok::<_, ()>(Front { mode, inlet, app: app.await? }) }
        });
        let http = HttpService::build()
            // No timer for each request: `StallWatch` closes idle connections.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(HEAD_MAX)
            // A reader's FIN must end its stream at once: it is how a closed tab looks.
            .h1_allow_half_closed(false)
            .local_addr(address)
            .on_connect_ext(move |socket: &Socket, data: &mut actix_http::Extensions| {
                stall_watch.add(socket.connection());
                data.insert::<Rc<Connection>>(Rc::clone(socket.connection()));
            })
            .finish(front);
        let acceptor = acceptor.clone();
        // Boxed, both: a connection's task keeps the room for a TLS handshake, and has each future
        // that is in line in it twice (where it was moved from and to).
        let service = fn_service(move |io| Box::pin(acceptor.clone().accept(io)))
            .map_err(|err| tracing::debug!(error = %err, "connection not accepted"))
            .and_then(http.map_err(|err| tracing::debug!(error = %err, "connection failed")));
        boxed::factory(service)
    };
    let server = Server::build()
        .workers(config.workers)
        .max_concurrent_connections(
            // Of each worker; connections are spread over them in turn.
            config.subscribers_max.div_ceil(config.workers) + CONNECTIONS_BESIDE_STREAMS,
        )
        .disable_signals()
        .listen("public", listener, service)?
        .run();
    Ok(server)
}

/// On a worker of its own, so that probes and metrics are answered however busy the others are.
fn ops_server(listener: TcpListener, parts: &Parts) -> io::Result<Server> {
    let (gauges, readiness) = (parts.gauges.clone(), parts.readiness.clone());
    let app = move || {
        App::new().app_data(gauges.clone()).app_data(readiness.clone()).configure(ops_routes)
    };
    let server = HttpServer::new(app)
        .workers(1)
        .client_request_timeout(HEAD_MAX)
        .disable_signals()
        .listen(listener)?
        .run();
    Ok(server)
}

//! Runs the gateway: every route in one list, the order of shutdown in one place.

use std::{
    io,
    net::TcpListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix_http::HttpService;
use actix_service::{
    ServiceFactory as _, ServiceFactoryExt as _, boxed, fn_factory, fn_service, map_config,
};
use actix_web::{
    App, HttpResponse, HttpServer,
    dev::{AppConfig, Server},
    guard::{Any, Get, Head},
    http::{KeepAlive, StatusCode, header},
    web,
};
use actix_web_lab::middleware::CatchPanic;
use rand::RngExt as _;
use rustls::ServerConfig;
use socket2::{Domain, Socket as Socket2, Type};
use tokio::task::JoinSet;

use crate::{
    accept::Acceptor,
    backplane::{Backplane, redis::Redis},
    budget::Budget,
    clock,
    config::{self, Config, Mode, PushAuth},
    connection::{Connection, HEAD_MAX, Socket},
    event::HISTORY_MAX,
    front::Front,
    guard::cors,
    hub::{DedupLimits, Hub, Limits, RingLimits},
    inlet::{
        body::InFlight,
        keys::{KeyTimes, Keys},
        oidc::Verifier,
        push::{self, Bursts, Inlet},
    },
    metrics::Metrics,
    ops::{self, Gauges, Readiness},
    outlet::{
        Outlet,
        access::Access,
        page,
        sse::{self, Worker},
        stream::SLOW_MAX_BYTES,
    },
    problem::{problem, problem_with},
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

/// What all workers share.
struct Parts {
    hub: Hub,
    inlet: web::Data<Inlet>,
    outlet: web::Data<Outlet>,
    readiness: web::Data<Readiness>,
    gauges: web::Data<Gauges>,
    in_flight: Arc<InFlight>,
    /// They end with this.
    tasks: JoinSet<()>,
}

impl Parts {
    fn new(config: &Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let metrics = Metrics::new()?;
        let mut tasks = JoinSet::new();
        let (hub, backplane) = log(config, &metrics, &mut tasks);
        let verifier = match &config.push_auth {
            PushAuth::None => None,
            PushAuth::Oidc { audiences, service_accounts } => {
                let url = config.push_jwks_url.clone();
                let keys = Keys::start(url, KeyTimes::default(), metrics.clone())?;
                Some(Arc::new(Verifier::new(keys, audiences, service_accounts)))
            }
        };
        let in_flight = InFlight::new(config.push_bytes_in_flight);
        let inlet = Inlet {
            backplane: backplane.clone(),
            verifier: verifier.clone(),
            topics: config.topics.clone(),
            on_poison: config.poison,
            in_flight: Arc::clone(&in_flight),
            metrics: metrics.clone(),
            bursts: Bursts::default(),
        };
        let outlet = Outlet {
            hub: hub.clone(),
            backplane: backplane.clone(),
            access: Access::Anonymous { served: config.topics.clone() },
            metrics: metrics.clone(),
            opening: AtomicUsize::new(0),
            slow: Budget::new(SLOW_MAX_BYTES),
            keep_alive: config.keep_alive,
            stream_age_max: config.stream_age_max,
        };
        let gauges =
            Gauges::new(metrics.registry, hub.clone(), backplane.clone(), Arc::clone(&in_flight))?;
        Ok(Self {
            hub,
            inlet: web::Data::new(inlet),
            outlet: web::Data::new(outlet),
            readiness: web::Data::new(Readiness::new(verifier, backplane)),
            gauges: web::Data::new(gauges),
            in_flight,
            tasks,
        })
    }
}

/// The rings, and what fills them. `tasks` keeps what runs for it.
fn log(config: &Config, metrics: &Metrics, tasks: &mut JoinSet<()>) -> (Hub, Backplane) {
    match &config.backplane {
        config::Backplane::Local => {
            let history = rand::rng().random_range(1..=HISTORY_MAX);
            let hub = Hub::new(limits(config), history, clock::now_ms());
            (hub.clone(), Backplane::Local(hub))
        }
        config::Backplane::Redis(options) => {
            let hub = Hub::copy(limits(config));
            let (copy, metrics) = (hub.clone(), metrics.clone());
            let redis = Redis::start(options, config.ring_age, copy, metrics, tasks);
            (hub, Backplane::Redis(redis))
        }
    }
}

fn limits(config: &Config) -> Limits {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Limits {
        ring: RingLimits { events: config.ring_events, bytes: config.ring_bytes },
        ring_age_ms: millis(config.ring_age),
        ring_bytes_total: config.ring_bytes_total,
        topics: config.topics_max,
        dedup: DedupLimits {
            age_ms: millis(config.dedup_age),
            ids: config.dedup_ids,
            ids_total: config.dedup_ids_total,
        },
        subscribers: config.subscribers_max,
    }
}

/// Every route.
fn public_routes(mode: Mode) -> impl FnOnce(&mut web::ServiceConfig) {
    move |routes| {
        let events = web::resource("/events")
            .wrap(cors(mode))
            .route(read().to(sse::events))
            .default_service(web::to(sse::only_get));
        let not_by_post = |path| web::resource(path).default_service(web::to(push::only_post));
        routes
            .service(events)
            .service(not_by_post("/push"))
            .service(not_by_post("/push/{topic}"))
            .configure(health_routes)
            .default_service(web::to(not_found));
        if mode == Mode::Dev {
            routes
                .route("/", read().to(page::html))
                .route("/page.js", read().to(page::script))
                .route("/page.css", read().to(page::style));
        }
    }
}

fn ops_routes(routes: &mut web::ServiceConfig) {
    routes
        .route("/metrics", read().to(ops::metrics))
        .configure(health_routes)
        .default_service(web::to(not_found));
}

/// Cloud Run keeps some paths that end in z for itself, hence the second names.
fn health_routes(routes: &mut web::ServiceConfig) {
    for path in ["/healthz", "/health"] {
        routes.service(
            web::resource(path).route(read().to(ops::health)).default_service(only_read()),
        );
    }
    for path in ["/readyz", "/ready"] {
        routes
            .service(web::resource(path).route(read().to(ops::ready)).default_service(only_read()));
    }
}

/// GET, and HEAD without the body.
fn read() -> actix_web::Route {
    web::route().guard(Any(Get()).or(Head()))
}

fn only_read() -> actix_web::Route {
    web::to(async || {
        let allow = (header::ALLOW, "GET, HEAD");
        problem_with(StatusCode::METHOD_NOT_ALLOWED, allow, "this is read with GET")
    })
}

async fn not_found() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path")
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
            .configure(public_routes(mode));
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

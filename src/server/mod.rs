//! Runs the gateway: its listeners, its workers, and the order of shutdown in one place.

mod components;
pub mod dispatch;
pub mod health;
pub mod heartbeat;
mod listeners;
mod routes;
mod worker;

use std::{
    io,
    net::TcpListener,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::server::components::Components;
pub use crate::server::listeners::{ListenError, Listeners};
use crate::server::routes::ops_routes;
use actix_web::{App, HttpServer, dev::Server, web};
use rustls::ServerConfig;

use crate::{clock, config::Config, hub::Hub, inlet::push::PushEndpoint, stream::StreamContext};

/// After the drain, for the last blocks to leave and for what is left to be closed by force.
const FLUSH: Duration = Duration::from_millis(400);
/// How often shutdown looks whether everyone has left.
const LEAVING_TICK: Duration = Duration::from_millis(20);

/// Runs until `shutdown`, then leaves in order: unready at once, and pushes are refused if events
/// are held in memory; readers are served as before for `--drain-delay`; streams end over `--drain-timeout`;
/// what is left is closed.
///
/// # Errors
/// When it cannot be started.
pub async fn run(
    config: Config,
    tls: Option<Arc<ServerConfig>>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut components = Components::new(&config).map_err(io::Error::other)?;
    let public = worker::server(&config, tls, listeners.public, &components)?;
    let ops = listeners.ops.map(|listener| ops_server(listener, &components)).transpose()?;
    let handles: Vec<_> = ops.iter().chain([&public]).map(Server::handle).collect();
    let servers: Vec<_> = ops.into_iter().chain([public]).map(tokio::spawn).collect();
    components.tasks.spawn(sweep(
        components.hub.clone(),
        components.inlet.clone(),
        components.streams.clone(),
    ));

    let mut tasks = std::mem::take(&mut components.tasks);
    tokio::select! {
        () = shutdown => {}
        ended = tasks.join_next() => {
            return Err(io::Error::other(format!("a task that never ends did: {ended:?}")));
        }
    }
    leave(&config, &components).await;
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

async fn leave(config: &Config, components: &Components) {
    let streams = components.hub.subscribers();
    tracing::info!(streams, delay = ?config.drain_delay, drain = ?config.drain_timeout, "leaving");
    components.readiness.leave();
    // New readers go to the process that replaces this one. An event that only this process held
    // would never reach them, and they would not be told. Pub/Sub pushes it again, to the other.
    components.hub.close();
    tokio::time::sleep(config.drain_delay).await;
    components.hub.drain(config.drain_timeout);
    let end = Instant::now() + config.drain_timeout + FLUSH / 2;
    let busy = || {
        let streams =
            components.hub.subscribers() + components.streams.waiting.load(Ordering::SeqCst);
        0 < streams + components.in_flight.pushes()
    };
    while busy() && Instant::now() < end {
        tokio::time::sleep(LEAVING_TICK).await;
    }
    // The last answers are on their way from another thread.
    tokio::time::sleep(LEAVING_TICK).await;
    tracing::info!(streams_cut = components.hub.subscribers(), "left");
}

async fn sweep(hub: Hub, inlet: web::Data<PushEndpoint>, streams: web::Data<StreamContext>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        hub.sweep(clock::now_ms());
        inlet.failures.sweep();
        streams.requests.sweep();
        streams.tickets.sweep();
        streams.backplane.sweep(Instant::now());
    }
}

/// On a worker of its own, so that probes and metrics are answered however busy the others are.
fn ops_server(listener: TcpListener, components: &Components) -> io::Result<Server> {
    let (gauges, readiness) = (components.gauges.clone(), components.readiness.clone());
    let health = components.health.clone();
    let app = move || {
        App::new()
            .app_data(gauges.clone())
            .app_data(readiness.clone())
            .app_data(health.clone())
            .configure(ops_routes)
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run();
    Ok(server)
}

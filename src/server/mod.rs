//! Runs the gateway: starts the listeners and workers, and shuts them down in order.

mod api;
mod components;
pub(crate) mod dispatch;
mod files;
pub mod health;
pub mod heartbeat;
mod inlets;
mod listeners;
mod ops;
mod routes;
mod worker;

use std::{
    io,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::server::components::Components;
pub use crate::server::{
    files::{FileError, Files},
    listeners::{ListenError, Listeners},
};
use actix_web::{dev::Server, web};

use crate::{
    clock,
    config::Config,
    hub::Hub,
    inlet::{publish::PublishEndpoint, push::PushEndpoint},
    stream::StreamContext,
};

/// Time after the drain in which the last bytes are sent and the remaining connections are closed.
const FLUSH: Duration = Duration::from_millis(400);
/// Time between two checks of shutdown whether streams or pushes remain.
const LEAVING_TICK: Duration = Duration::from_millis(20);

/// Runs the gateway until `shutdown` resolves, and then shuts it down in this order:
///
/// 1. `/readyz` answers 503, no more messages are pulled, and pushes are refused if events are held
///    in memory.
/// 2. For `--drain-delay`, readers are served as before.
/// 3. Streams end, spread over `--drain-timeout`.
/// 4. The remaining connections are closed.
///
/// # Errors
/// Returns an error if the gateway cannot start, or if a background task ends.
pub async fn run(
    config: Config,
    files: Files,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut components = Components::new(&config, files.read_key).map_err(io::Error::other)?;
    let public = worker::server(&config, files.tls, listeners.public, &components)?;
    let ops =
        listeners.ops.map(|listener| ops::server(&config, listener, &components)).transpose()?;
    let handles: Vec<_> = ops.iter().chain([&public]).map(Server::handle).collect();
    let servers: Vec<_> = ops.into_iter().chain([public]).map(tokio::spawn).collect();
    components.tasks.spawn(sweep(
        components.hub.clone(),
        components.inlet.clone(),
        components.publish.clone(),
        components.streams.clone(),
    ));

    let mut tasks = std::mem::take(&mut components.tasks);
    tokio::select! {
        () = shutdown => {}
        ended = tasks.join_next() => {
            return Err(io::Error::other(format!("a background task ended: {ended:?}")));
        }
    }
    leave(&config, &components).await;
    components.streams.presence.leave().await;
    let stopped = async {
        for handle in handles {
            handle.stop(false).await;
        }
        for server in servers {
            if let Ok(Err(err)) = server.await {
                tracing::error!(error = %err, "a listener's server failed");
            }
        }
    };
    if tokio::time::timeout(FLUSH, stopped).await.is_err() {
        tracing::warn!("workers did not stop in time; their connections are cut");
    }
    Ok(())
}

/// Runs the steps of shutdown until no stream, push or pull remains, or until the time is over.
async fn leave(config: &Config, components: &Components) {
    let streams = components.hub.subscribers();
    tracing::info!(streams, delay = ?config.drain_delay, drain = ?config.drain_timeout, "leaving");
    components.readiness.leave();
    // New readers connect to the process that replaces this one. They would miss an event that only
    // this process holds, without a gap. Pub/Sub pushes a refused message to the other process.
    components.hub.close();
    components.pulls.stop();
    tokio::time::sleep(config.drain_delay).await;
    components.hub.drain(config.drain_timeout);
    let end = Instant::now() + config.drain_timeout + FLUSH / 2;
    let busy = || {
        let streams =
            components.hub.subscribers() + components.streams.waiting.load(Ordering::SeqCst);
        0 < streams + components.in_flight.pushes() + components.pulls.running()
    };
    while busy() && Instant::now() < end {
        tokio::time::sleep(LEAVING_TICK).await;
    }
    // Other threads may still be sending the last answers.
    tokio::time::sleep(LEAVING_TICK).await;
    tracing::info!(streams_cut = components.hub.subscribers(), "left");
}

/// Removes old events and unused entries of limits each second. Never returns.
async fn sweep(
    hub: Hub,
    inlet: web::Data<PushEndpoint>,
    publish: web::Data<PublishEndpoint>,
    streams: web::Data<StreamContext>,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        hub.sweep(clock::now_ms());
        inlet.failures.sweep();
        publish.sweep();
        streams.requests.sweep();
        streams.tickets.sweep();
        streams.backplane.sweep(Instant::now());
    }
}

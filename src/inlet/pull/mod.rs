//! Streaming pull: the inlet for gateways that Pub/Sub cannot push to. One task for each
//! subscription of `--pull` takes its messages, and acks each one when it is stored.
//!
//! Google's client library is compiled with the cargo feature `pull` only.

#[cfg(feature = "pull")]
mod attempts;
#[cfg(feature = "pull")]
mod client;
#[cfg(feature = "pull")]
mod delivery;
#[cfg(feature = "pull")]
mod failure;
#[cfg(feature = "pull")]
mod key_queues;
#[cfg(feature = "pull")]
mod pauses;
#[cfg(feature = "pull")]
mod puller;
#[cfg(feature = "pull")]
mod stream_watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

#[cfg(feature = "pull")]
use crate::inlet::pull::puller::pull;
use crate::{
    config::{PullConfig, PullSubscription},
    inlet::{Inlet, body::InFlight},
    telemetry::metrics::Metrics,
};

/// Time after the start for which a gateway that pulls is unready until its streams are open. After
/// that time the gateway is ready in any case, so that it can serve readers.
const READY_AFTER: Duration = Duration::from_secs(10);

/// Subscriptions that are pulled.
#[derive(Debug)]
pub struct Pulls {
    started: Instant,
    /// Number of subscriptions.
    count: usize,
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
}

/// Progress of all subscriptions.
#[derive(Debug, Default)]
struct Progress {
    /// Subscriptions whose stream has been open at least once.
    opened: AtomicUsize,
    /// Subscriptions whose task has not ended.
    running: AtomicUsize,
}

/// Settings and shared state for the task of one subscription.
#[cfg_attr(not(feature = "pull"), expect(dead_code, reason = "a build without pull pulls nothing"))]
struct Pull {
    subscription: PullSubscription,
    config: Arc<PullConfig>,
    /// Policy for the messages.
    inlet: Arc<Inlet>,
    /// Memory for the messages, which pushes share.
    in_flight: Arc<InFlight>,
    metrics: Metrics,
    progress: Arc<Progress>,
    /// Time from the start of shutdown to the end of the process.
    leave_within: Duration,
    /// Becomes true at the start of shutdown.
    stop: watch::Receiver<bool>,
}

impl Pulls {
    /// Starts a task in `tasks` for each subscription. The task ends after [`Self::stop`], and the
    /// process after `leave_within` from then.
    pub(crate) fn start(
        config: &PullConfig,
        inlet: Inlet,
        in_flight: &Arc<InFlight>,
        metrics: &Metrics,
        leave_within: Duration,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let config = Arc::new(config.clone());
        let (inlet, progress) = (Arc::new(inlet), Arc::<Progress>::default());
        let count = config.subscriptions.len();
        progress.running.store(count, Ordering::SeqCst);
        for subscription in &config.subscriptions {
            tasks.spawn(pull(Pull {
                subscription: subscription.clone(),
                config: Arc::clone(&config),
                inlet: Arc::clone(&inlet),
                in_flight: Arc::clone(in_flight),
                metrics: metrics.clone(),
                progress: Arc::clone(&progress),
                leave_within,
                stop: stopped.clone(),
            }));
        }
        Self { started: Instant::now(), count, progress, stop }
    }

    /// Returns true if each subscription has been open, or if [`READY_AFTER`] is over.
    pub(crate) fn is_ready(&self) -> bool {
        self.count <= self.progress.opened.load(Ordering::SeqCst)
            || READY_AFTER < self.started.elapsed()
    }

    /// Begins shutdown: no more messages are taken, those that are being stored are acked when they
    /// are stored, and Pub/Sub gets back all others.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns the number of subscriptions whose acks are not all sent yet. It becomes 0 some time
    /// after [`Self::stop`].
    pub(crate) fn running(&self) -> usize {
        self.progress.running.load(Ordering::SeqCst)
    }
}

/// Does nothing: a build without the feature refuses `--pull`.
#[cfg(not(feature = "pull"))]
fn pull(_: Pull) -> std::future::Ready<()> {
    std::future::ready(())
}

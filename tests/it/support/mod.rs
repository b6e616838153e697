//! What the tests share: a gateway, clients of our own making, and independent oracles.

pub mod browser;
#[cfg(feature = "otel")]
pub mod collector;
pub mod emulator;
pub mod gateway;
pub mod grpc;
pub mod haproxy;
pub mod http1;
pub mod http2;
pub mod http2_body;
pub mod jwks;
pub mod ndjson;
pub mod nginx;
pub mod parser;
pub mod process;
pub mod reader;
pub mod redis;
pub mod tls;
pub mod tunnel;
pub mod victim;
pub mod websocket;

use std::time::{Duration, Instant};

/// No wait in a test is longer. It is never how long a test takes, only how long it may hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is something, and fails with `what` if there never is.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never came to be: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs to the end, which has to come in time.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(PATIENCE, future).await };
    runtime.block_on(limited).expect("it took too long")
}

/// The seed of a test that draws random numbers: `SEED` in the environment, or a new one. Printed,
/// so that a failure can be had again.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("{test}: SEED={seed}");
    seed
}

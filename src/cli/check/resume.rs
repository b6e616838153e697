//! Check of resumption: closes a stream, and opens it again after the id of its first block.

use std::time::Duration;

use crate::cli::check::{
    finding::Finding,
    probe::Probe,
    settings::{LAST_EVENT_ID, REPLICAS},
    stream::{Stream, member},
};

const CHECK: &str = "resume";

/// Number of resumptions. A single one could reach the same replica by chance.
const ROUNDS: usize = 4;
/// Limit on the time until the first block of a resumed stream.
const FIRST_BLOCK_MAX: Duration = Duration::from_secs(5);
/// Time to wait for a gap. The gateway sends it immediately after the first block.
const GAP_MAX: Duration = Duration::from_millis(300);

/// Resumes [`ROUNDS`] times, each time after the id of the stream before.
pub(super) async fn check(probe: &Probe, mut id: String) -> Finding {
    if id.is_empty() {
        return Finding::not_checked(CHECK, "the first block of the stream had no id");
    }
    for _ in 0..ROUNDS {
        let Ok(mut stream) = Stream::open(probe, Some(&id), "identity").await else {
            return Finding::not_checked(CHECK, "a second connection got no stream");
        };
        let open = stream.next(FIRST_BLOCK_MAX).await;
        let Some(open) = open.filter(|event| event.event == "stream-open") else {
            return Finding::not_checked(CHECK, "a second stream did not begin with stream-open");
        };
        let gap = stream.next(GAP_MAX).await.filter(|event| event.event == "stream-gap");
        let reason = gap.map(|gap| member(&gap, "reason")).unwrap_or_default();
        if ["restart", "unknown-id"].contains(&reason.as_str()) {
            let text = format!(
                "a second connection did not know the id of the first (stream-gap, {reason}): it \
                 reached another gateway. Expected replicas with one log"
            );
            return Finding::problem(CHECK, text, REPLICAS);
        }
        if member(&open, "resumed") != "true" {
            let text = "a second connection with Last-Event-ID began anew: the header did not \
                        reach the gateway";
            return Finding::problem(CHECK, text, LAST_EVENT_ID);
        }
        open.id.clone_into(&mut id);
    }
    Finding::good(CHECK, format!("{ROUNDS} connections resumed after the id of the one before"))
}

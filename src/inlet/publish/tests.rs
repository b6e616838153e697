//! Tests of publishing without a transport, as an outlet such as a WebSocket uses it.

use super::*;
use crate::{
    backplane::Backplane,
    config::OnPoison,
    hub::{DedupLimits, Hub, Limits, RingLimits},
};

fn hub() -> Hub {
    let limits = Limits {
        ring: RingLimits { events: 10, bytes: 1 << 20 },
        ring_age_ms: 60_000,
        ring_bytes_total: 1 << 20,
        topics: 10,
        dedup: DedupLimits { age_ms: 60_000, ids: 10, ids_total: 10 },
        subscribers: 10,
        followed_bytes: 1 << 20,
        filters: 10,
    };
    Hub::new(limits, 7, clock::now_ms())
}

/// Returns an endpoint for anyone, without limits.
fn endpoint(hub: &Hub, metrics: &Metrics) -> PublishEndpoint {
    let backplane = Backplane::Local(hub.clone(), Arc::default());
    PublishEndpoint {
        inlet: Inlet::new(backplane, Vec::new(), OnPoison::Ack, metrics, &metrics.publishes),
        access: Some(PublishAccess::Anyone),
        in_flight: InFlight::new(1_000),
        body_timeout: Duration::from_secs(1),
        by_subject: RateLimit::new(0, metrics.limit("publishes-per-subject")),
        by_address: RateLimit::new(0, metrics.limit("publishes-per-address")),
        trusted_proxies: 0,
        metrics: metrics.clone(),
        denied_log: LogThrottle::default(),
    }
}

fn publication(data: &'static str) -> Publication {
    Publication {
        topic: "orders".parse().unwrap(),
        data: data.into(),
        attributes: std::collections::BTreeMap::new(),
        ordering_key: None,
        idempotency_key: Some(format!("key of {}", data.get(..1).unwrap_or_default())),
    }
}

#[tokio::test]
async fn a_message_is_published_without_a_request() {
    let (hub, metrics) = (hub(), Metrics::new().unwrap());
    let endpoint = endpoint(&hub, &metrics);
    let publisher = endpoint.publisher(None, None).unwrap();
    let id = endpoint.publish(&publisher, publication("one")).await.unwrap();
    assert_eq!(id, hub.head());
    assert_eq!(endpoint.publish(&publisher, publication("one again")).await.unwrap(), id);
    let refused = endpoint.publish(&publisher, publication("")).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.retry_after()), (400, None));
    hub.close();
    let refused = endpoint.publish(&publisher, publication("two")).await.unwrap_err();
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.retry_after().is_some() && refused.to_string().contains("shutting down"));
    for outcome in ["stored", "duplicate", "invalid", "shutting-down"] {
        assert_eq!(metrics.publishes.with_label_values(&[outcome]).get(), 1, "{outcome}");
    }
}

#[tokio::test]
async fn without_access_there_is_no_publisher() {
    let (hub, metrics) = (hub(), Metrics::new().unwrap());
    let endpoint = PublishEndpoint { access: None, ..endpoint(&hub, &metrics) };
    let refused = endpoint.publisher(None, None).unwrap_err();
    assert_eq!(refused.status().as_u16(), 404);
    assert!(refused.to_string().contains("--publish-auth"));
}

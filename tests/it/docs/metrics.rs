//! The metrics that documents name are those of the program.

use std::collections::{BTreeMap, BTreeSet};

use super::read;
use crate::support::{gateway::Gateway, http1};

/// Code that creates metrics.
fn code() -> String {
    read("src/telemetry/metrics.rs") + &read("src/server/health.rs")
}

/// Compares the metrics that documents name with those of the gateway.
#[test]
fn the_metrics_of_the_documents_are_those_of_the_program() {
    let code = code();
    let mut named = 0;
    for path in [
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "docs/performance.md",
        "docs/metrics.md",
        "docs/operations.md",
        "docs/pushing.md",
        "docs/presence.md",
        "docs/publishing.md",
        "docs/pull.md",
        "docs/reading.md",
        "docs/logs.md",
        "docs/traces.md",
        "deploy/RUNBOOK.md",
        "deploy/grafana/dashboard.json",
        "k8s/components/prometheus/rules.yaml",
    ] {
        let text = read(path);
        for after in text.split("stream_events_").skip(1) {
            let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_');
            let mut name = &after[..end.unwrap_or(after.len())];
            for of_histogram in ["_seconds_bucket", "_seconds_count", "_seconds_sum"] {
                name = name.strip_suffix(of_histogram).unwrap_or(name);
            }
            // `stream_events_streams_…` names several at once.
            if name.is_empty() || name.ends_with('_') {
                continue;
            }
            let forms = [format!("\"{name}"), format!("\"stream_events_{name}")];
            let found = forms.iter().any(|form| {
                let whole = |end: &str| code.contains(&format!("{form}{end}\""));
                whole("") || whole("_seconds")
            });
            assert!(found, "{path} names stream_events_{name}, which is no metric");
            named += 1;
        }
    }
    assert!(10 < named, "only {named} metrics are named");
}

/// Returns the rows of docs/metrics.md: the name of each metric, its type and its label.
fn rows() -> BTreeMap<String, (String, Option<String>)> {
    let text = read("docs/metrics.md");
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (kind, _) = rest.split_once(" | ")?;
        let (kind, label) = kind
            .split_once(", ")
            .map_or((kind, None), |(kind, label)| (kind, Some(label.trim_matches('`').to_owned())));
        Some((name.to_owned(), (kind.to_owned(), label)))
    };
    text.lines().filter_map(row).collect()
}

/// Compares the metrics that a gateway exposes, with their types and labels, and those that the code
/// creates, with the table.
#[test]
fn the_table_of_metrics_is_that_of_the_program() {
    let rows = rows();
    let gateway = Gateway::dev(&[]);
    gateway.publish("orders", "seen");
    gateway.push("orders", &serde_json::json!("no message"));
    assert_eq!(gateway.events("?since=1h").next().data, "seen");
    let text = http1::request(gateway.ops, "GET", "/metrics", &[], b"").text();
    let mut exposed = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE stream_events_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = format!("stream_events_{name}");
        let (row_kind, label) = rows.get(&name).unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(row_kind, kind, "{name}");
        let sample = format!("{name}{{");
        let labels = text.lines().find_map(|line| line.strip_prefix(&sample));
        let labels = labels.and_then(|labels| labels.split_once('='));
        assert_eq!(labels.map(|(name, _)| name), label.as_deref(), "the label of {name}");
        exposed.insert(name);
    }
    assert!(20 < exposed.len(), "{exposed:?}");
    for literal in code().split('"').skip(1).step_by(2) {
        let name = format!("stream_events_{}", literal.trim_start_matches("stream_events_"));
        let is_metric = ["_total", "_seconds"].iter().any(|end| literal.ends_with(end));
        assert!(!is_metric || rows.contains_key(&name), "{name} has no row");
    }
}

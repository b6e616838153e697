//! docs/protocol.md has the names and reasons that the gateway sends.

use std::collections::BTreeSet;

use super::{
    api::{between, quoted},
    read,
};

/// Returns the cells of the rows of a section's table, without its head.
fn rows<'a>(page: &'a str, section: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let lines = rest.lines().skip_while(|line| !line.starts_with('|'));
    let lines = lines.take_while(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches(['|', ' ']).split(" | ").collect()).collect()
}

/// Returns the name in a cell that holds one name in backticks and nothing else.
fn name(cell: &str) -> Option<&str> {
    let name = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!name.contains('`')).then_some(name)
}

/// Compares the columns of server-sent events and lines with the gateway's own description, and
/// those of the WebSocket and gRPC with the proto file.
#[test]
fn names_are_those_of_each_way_to_read() {
    let page = read("docs/protocol.md");
    let table = rows(&page, "Names");
    let column =
        |index: usize| -> BTreeSet<_> { table.iter().filter_map(|row| name(row[index])).collect() };
    let source = read("src/server/api/asyncapi.json");
    let events = quoted(&source, "\": { \"$ref\": \"#/components/messages/stream-");
    assert_eq!(column(1), events);
    let lines: BTreeSet<_> = column(1).into_iter().chain(["stream-checkpoint"]).collect();
    assert_eq!(column(2), lines);
    let proto = read("proto/stream_events/v1/stream_events.proto");
    let fields = between(&proto, "  oneof record {\n", "  }\n").lines();
    let mut records: BTreeSet<_> =
        fields.filter_map(|field| field.split(" = ").next()?.split(' ').next_back()).collect();
    for other in ["event", "ok", "error"] {
        assert!(records.remove(other), "{other}");
    }
    assert_eq!(column(4), records);
    records.remove("keep_alive");
    assert_eq!(column(3), records);
}

#[test]
fn reasons_are_those_of_the_code() {
    let page = read("docs/protocol.md");
    for (section, file, of) in [
        ("Gaps", "src/model/gap.rs", "impl GapReason"),
        ("Ends", "src/model/control.rs", "impl EndReason"),
    ] {
        let source = read(file);
        let reasons = quoted(between(&source, of, "\n}"), "Self::");
        let table = rows(&page, section);
        let documented: BTreeSet<_> = table.iter().filter_map(|row| name(row[0])).collect();
        assert_eq!(documented, reasons, "{section}");
    }
}

//! Each kind of stream that is wrong, and some that are right.

use super::*;

/// A stream on topics 0 and 1 gets blocks, of five messages to the first: `+3` is its event 3,
/// `+3@2` the same with the id of the second, and anything else is a gap's data.
fn given(blocks: &[&str]) -> Check {
    let mut check = Check::new(Shape { streams: 1, topics: 2, per_stream: 2 });
    (0..5).for_each(|_| _ = check.published(0, 100));
    for block in blocks {
        if let Some(event) = block.strip_prefix('+') {
            let (sequence, id) = event.split_once('@').unwrap_or((event, event));
            let mut text = Vec::new();
            let sequence = sequence.parse().unwrap();
            Payload { sequence, ..Payload::default() }.write(100, &mut text);
            let id = format!("7-{id}");
            let (data, id) = (Some(text.as_slice()), Some(id.as_bytes()));
            check.block(0, &Block { data, id, ..Block::default() });
        } else {
            let (event, data) = (b"stream-gap".as_slice(), Some(block.as_bytes()));
            check.block(0, &Block { event, data, ..Block::default() });
        }
    }
    check.finish();
    check
}

const GAP: &str = r#"{"reason":"evicted","topics":["topic0"],"after":"7-1","upto":"7-3"}"#;

#[test]
fn all_in_order_or_told_is_well() {
    for well in [
        ["+1", "+2", "+3", "+4", "+5"].as_slice(),
        &["+1", GAP, "+4", "+5"],
        &["+1", GAP, GAP, "+4", "+5"],
        &["+1", &GAP.replace(r#""topic0""#, ""), "+4", "+5"],
    ] {
        let check = given(well);
        assert_eq!(check.named, [""; 0], "{well:?}");
    }
    assert_eq!(given(&["+1", GAP, "+4", "+5"]).missed, 2);
}

#[test]
fn loss_doubles_disorder_and_gaps_that_do_not_fit_are_violations() {
    for wrong in [
        ["+1", "+2", "+4", "+5"].as_slice(),
        &["+1", "+2", "+3", "+4"],
        &["+1", "+2", "+2", "+3", "+4", "+5"],
        &["+2", "+1", "+3", "+4", "+5"],
        &["+1", "+2", "+3", "+4", "+5@4"],
        &["+1", "+2@9", "+3", "+4", "+5"],
        &["+1", "+2", "+3", "+4", "+5", "+6"],
        &["+1", &GAP.replace("topic0", "topic1"), "+4", "+5"],
        &["+1", &GAP.replace("evicted", "unknown-id"), "+4", "+5"],
        &["+1", &GAP.replace("7-3", "7-1"), "+2", "+3", "+4", "+5"],
        &["+1", "{}", "+2", "+3", "+4", "+5"],
        // Told once, lost again.
        &["+1", GAP, "+3", "+5"],
    ] {
        assert_ne!(given(wrong).violations, 0, "{wrong:?}");
    }
}

#[test]
fn a_loss_outside_of_what_was_told_is_a_violation() {
    let mut check = Check::new(Shape { streams: 2, topics: 1, per_stream: 1 });
    let mut text = Vec::new();
    for sequence in 1..=4_u32 {
        check.published(0, 100);
        text.clear();
        Payload { sequence, ..Payload::default() }.write(100, &mut text);
        let id = format!("7-{sequence}");
        let (data, id) = (Some(text.as_slice()), Some(id.as_bytes()));
        check.block(0, &Block { data, id, ..Block::default() });
    }
    // The other stream got 1, and is told of 2; but 3 is missing too.
    let event = b"stream-gap".as_slice();
    let data = Some(br#"{"reason":"evicted","topics":[],"after":"7-0","upto":"7-2"}"#.as_slice());
    check.block(1, &Block { event, data, ..Block::default() });
    let (data, id) = (Some(text.as_slice()), Some(b"7-4".as_slice()));
    check.block(1, &Block { data, id, ..Block::default() });
    assert_eq!((check.violations, check.missed), (1, 2), "{:?}", check.named);
}

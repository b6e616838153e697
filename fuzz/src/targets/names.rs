//! The small grammars: event ids, topics, patterns of topics, origins. An input is a text and, on
//! a second line, what it is compared with.

use actix_web::http::Uri;
use stream_events::{
    config::Origin,
    model::{
        event_id::{EventId, HISTORY_MAX},
        topic::{Topic, TopicPattern},
    },
};

/// See the module.
pub fn run(input: &[u8]) -> &'static str {
    let Ok(text) = str::from_utf8(input) else { return "no-text" };
    let (one, other) = text.split_once('\n').unwrap_or((text, "0-1"));
    let id = event_id(one);
    if let (Some(id), Some(other)) = (id, event_id(other)) {
        let pair = |id: EventId| (id.time_ms, id.sequence);
        assert_eq!(id.cmp(&other), pair(id).cmp(&pair(other)), "ids are compared as pairs");
        follows(id, other.time_ms);
    }
    let topic = topic(one);
    let pattern = pattern(one, other);
    let origin = origin(one, other);
    match (id, topic, pattern, origin) {
        (Some(_), ..) => "id",
        (_, Some(_), ..) => "topic",
        (.., Some(_), _) => "pattern",
        (.., Some(true)) => "origin-matches",
        (.., Some(false)) => "origin-differs",
        _ => "nothing",
    }
}

/// An id is two numbers as Rust prints them, and what is read prints as it was.
fn event_id(text: &str) -> Option<EventId> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| n.to_string() == text);
    let want = text.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    let id = text.parse::<EventId>().ok();
    assert_eq!(id.map(|id| (id.time_ms, id.sequence)), want, "{text:?}");
    if let Some(id) = id {
        assert_eq!(id.to_string(), text);
    }
    id
}

/// What a gateway with this clock and this history hands out: it grows, it keeps the history, and
/// it has at most 31 bytes.
fn follows(id: EventId, now_ms: u64) {
    // 13 digits of milliseconds last until the year 2286.
    const TIMES: u64 = 9_999_999_999_999;
    let (time_ms, now_ms) = (id.time_ms.min(TIMES - 1), now_ms.min(TIMES));
    let id = EventId { time_ms, sequence: id.sequence & ((HISTORY_MAX << 32) | 0xffff_ffff) };
    let next = id.next(now_ms);
    assert!(id < next && next.history() == id.history(), "{id}, then {next}");
    assert!(next.to_string().len() <= 31, "{next}");
    let before = EventId::before(now_ms, id.history());
    let start = EventId::start_of(id.history(), now_ms);
    assert!(before < start || now_ms == 0, "{before} is before {start}");
    assert_eq!(before.history(), id.history());
}

/// Google's grammar of resource names, written in another way.
fn is_topic(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = chars.all(
        |c| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' | '+' | '%'),
    );
    first && rest && 2 < text.len() && text.len() < 256 && text.get(..4) != Some("goog")
}

fn topic(text: &str) -> Option<Topic> {
    let topic = text.parse::<Topic>().ok();
    assert_eq!(topic.as_ref().map(Topic::as_str), Some(text).filter(|text| is_topic(text)));
    let last = text.rsplit('/').next().filter(|last| is_topic(last));
    assert_eq!(Topic::from_resource_name(text).ok().as_ref().map(Topic::as_str), last);
    let topic = topic?;
    for prefix in topic.prefixes() {
        assert!(text.starts_with(prefix) && prefix.ends_with('.'), "{prefix:?} of {text:?}");
    }
    assert_eq!(topic.prefixes().count(), text.matches('.').count());
    Some(topic)
}

/// A pattern prints as it was, matches its topic or its prefix's, and nothing that goes beyond.
fn pattern(text: &str, name: &str) -> Option<TopicPattern> {
    let pattern = text.parse::<TopicPattern>().ok();
    let prefix = text.strip_suffix('*');
    let valid = match prefix {
        Some(prefix) => {
            prefix.is_empty() || prefix.ends_with('.') && is_topic(&format!("{prefix}x"))
        }
        None => is_topic(text),
    };
    assert_eq!(pattern.is_some(), valid, "{text:?}");
    let pattern = pattern?;
    assert_eq!(pattern.to_string(), text);
    if let Ok(topic) = name.parse::<Topic>() {
        let want = prefix.map_or(name == text, |prefix| name.starts_with(prefix));
        assert_eq!(pattern.matches(&topic), want, "{text:?}, {name:?}");
        let by_prefix = topic.prefixes().any(|of_name| Some(of_name) == prefix);
        let below = prefix.is_some_and(|prefix| !prefix.is_empty()) && want;
        assert_eq!(by_prefix, below, "{text:?} is one of the prefixes of {name:?}");
    }
    Some(pattern)
}

/// Whether an origin matches a page's. What matches is, to another parser, an address of that
/// scheme below that domain, without a user, path or query.
fn origin(text: &str, page: &str) -> Option<bool> {
    let origin = text.parse::<Origin>().ok()?;
    let matches = origin.matches(page);
    match &origin {
        Origin::Exact(exact) => {
            assert_eq!((exact.as_str(), matches), (text, page == text));
        }
        Origin::Subdomains(before, after) if matches => {
            assert_eq!(format!("{before}*{after}"), text);
            if let Ok(uri) = page.parse::<Uri>() {
                let authority = uri.authority().unwrap().as_str();
                assert!(authority.ends_with(after) && !authority.contains('@'), "{page:?}");
                assert_eq!(uri.scheme_str(), before.strip_suffix("://"), "{page:?}");
                assert!(uri.path() == "/" && uri.query().is_none(), "{page:?}");
            }
        }
        Origin::Subdomains(..) => {}
    }
    Some(matches)
}

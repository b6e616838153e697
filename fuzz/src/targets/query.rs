//! What a reader asks for, in the query and in headers, against a reading by hand.
//!
//! An input is a query, and on further lines headers.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use actix_web::{
    HttpRequest,
    http::{
        Uri,
        header::{HeaderName, HeaderValue},
    },
    test::TestRequest,
};
use stream_events::{
    http::client_address::client_address,
    hub::Start,
    model::{
        event_id::EventId,
        filter::{Filter, FilterCache},
        topic::TopicPattern,
    },
    stream::{
        delivery::Delivery,
        fold::Slow,
        request::{StreamRequest, StreamRequestError},
    },
};

/// The nearest proxy.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// Some time in 2025.
const NOW_MS: u64 = 1_763_690_177_349;
const TOPICS_MAX: usize = 1_000;

/// See the module.
pub fn run(input: &[u8]) -> &'static str {
    let Some(request) = request(input) else { return "no-request" };
    counts_from_the_right(&request);
    let asked = StreamRequest::read(&request, NOW_MS, TOPICS_MAX, &mut FilterCache::default());
    let accept: Vec<_> = request.headers().get_all("accept").cloned().collect();
    let accept = accept.iter().map(|value| value.as_bytes().to_ascii_lowercase());
    let accept = accept.collect::<Vec<_>>().join(&b',');
    let parameters = parameters(request.query_string());
    match asked {
        Err(StreamRequestError::NotAcceptable) => {
            assert!(!accept.is_empty(), "it rules something out");
            "not-acceptable"
        }
        Err(StreamRequestError::TooManyTopics(max)) => {
            assert!(max < names(&parameters).count());
            "too-many-topics"
        }
        Err(StreamRequestError::Parameter(text)) => {
            let wrong = what_is_wrong(&parameters, &request);
            assert!(wrong.is_none_or(|wrong| wrong), "nothing is wrong, and yet: {text}");
            assert!(text.len() < 1_000, "the answer is as long as the query");
            "bad-parameter"
        }
        Ok(asked) => {
            let named = accept.windows(17).any(|part| part == b"text/event-stream");
            assert!(named || !asked.is_event_source);
            is_as_asked(&asked, &parameters, &request)
        }
    }
}

fn request(input: &[u8]) -> Option<HttpRequest> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let query = str::from_utf8(lines.next()?).ok()?;
    let uri = format!("/events?{query}");
    let whole = uri.parse::<Uri>().is_ok_and(|uri| uri.query() == Some(query));
    let mut request = TestRequest::with_uri(if whole { &uri } else { return None });
    request = request.peer_addr((PEER, 443).into());
    for line in lines {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?;
        request = request.append_header((name, value));
    }
    Some(request.to_http_request())
}

/// Names and values as a form has them
/// (<https://url.spec.whatwg.org/#urlencoded-parsing>), which has U+FFFD for what is no text.
fn parameters(query: &str) -> Vec<(String, String)> {
    let decoded = |part: &str| {
        let mut bytes = Vec::new();
        let mut rest = part.as_bytes();
        while let [first, after @ ..] = rest {
            let hex = after.get(..2).and_then(|hex| str::from_utf8(hex).ok());
            let hex = hex.filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
            match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
                (b'%', Some(byte)) => {
                    bytes.push(byte);
                    rest = &after[2..];
                    continue;
                }
                (b'+', _) => bytes.push(b' '),
                _ => bytes.push(*first),
            }
            rest = after;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn values<'a>(parameters: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    parameters.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
}

fn names(parameters: &[(String, String)]) -> impl Iterator<Item = &str> {
    values(parameters, "topic").into_iter().flat_map(|list| list.split(',')).map(str::trim_ascii)
}

/// `None` when that is up to the parser of times.
fn what_is_wrong(parameters: &[(String, String)], request: &HttpRequest) -> Option<bool> {
    const KNOWN: [&str; 11] = [
        "topic",
        "last_event_id",
        "since",
        "rewind",
        "latest",
        "slow",
        "filter",
        "format",
        "ticket",
        "presence",
        "name",
    ];
    if values(parameters, "since").iter().any(|since| !since.is_empty()) {
        return None;
    }
    if parameters.iter().any(|(name, _)| ["mode", "limit", "wait"].contains(&name.as_str())) {
        return None;
    }
    let unknown = parameters.iter().any(|(name, _)| !KNOWN.contains(&name.as_str()));
    let twice = KNOWN[1..].iter().any(|name| 1 < values(parameters, name).len());
    // `Accept` decides whether the format can be `data`, and whether a reader can be slow.
    let format = values(parameters, "format");
    let slow = values(parameters, "slow");
    let presence = values(parameters, "presence");
    let of_delivery = format.contains(&"data") || !slow.is_empty() || !presence.is_empty();
    if of_delivery && request.headers().contains_key("accept") {
        return None;
    }
    let format = format.iter().any(|name| !["data", "message", "cloudevents"].contains(name));
    let filter = values(parameters, "filter")
        .iter()
        .any(|filter| !filter.is_empty() && Filter::parse(filter).is_err());
    let slow = slow.iter().any(|slow| !["gap", "latest"].contains(slow));
    let (rewind, latest) = (values(parameters, "rewind"), values(parameters, "latest"));
    let rewinds = |text: &&str| text.parse().is_ok_and(|n| (1..=1_000).contains(&n));
    let is_latest = |text: &&str| {
        *text == "key" || text.strip_prefix("attributes.").is_some_and(|k| !k.is_empty())
    };
    let fold = !rewind.iter().all(rewinds)
        || !latest.iter().all(is_latest)
        || !rewind.is_empty() && !latest.is_empty();
    let name = values(parameters, "name");
    let is_name = |name: &&str| {
        (1..=255).contains(&name.len()) && !name.contains(char::is_control) && name.trim() == *name
    };
    let rooms = names(parameters).filter(|name| !name.ends_with('*')).collect::<BTreeSet<_>>();
    let presence = match presence.first().copied() {
        None | Some("off") => !name.is_empty(),
        Some("on") => !(1..=16).contains(&rooms.len()),
        Some(_) => true,
    };
    let presence = presence || !name.iter().all(is_name);
    let topic = names(parameters).any(|name| name.parse::<TopicPattern>().is_err());
    let many = TOPICS_MAX < names(parameters).count();
    let id = values(parameters, "last_event_id")
        .iter()
        .any(|id| !id.is_empty() && id.parse::<EventId>().is_err());
    Some(unknown || twice || fold || slow || presence || filter || format || topic || many || id)
}

fn header_id(request: &HttpRequest) -> Option<Result<EventId, ()>> {
    let value = request.headers().get("last-event-id")?.as_bytes().trim_ascii();
    let id = str::from_utf8(value).map_err(drop).and_then(|text| text.parse().map_err(drop));
    (!value.is_empty()).then_some(id)
}

fn is_as_asked(
    asked: &StreamRequest,
    parameters: &[(String, String)],
    request: &HttpRequest,
) -> &'static str {
    assert_ne!(what_is_wrong(parameters, request), Some(true), "{parameters:?}");
    let topics: BTreeSet<_> = names(parameters).map(str::to_owned).collect();
    assert!(topics.into_iter().eq(asked.topics.iter().map(ToString::to_string)));
    let one = |name: &str| values(parameters, name).first().copied();
    assert_eq!(asked.ticket.as_deref(), one("ticket"));
    assert_eq!(asked.presence.is_some(), one("presence") == Some("on"));
    let filter = one("filter").filter(|text| !text.is_empty());
    assert_eq!(asked.filter, filter.and_then(|text| Filter::parse(text).ok()));
    if asked.delivery == Delivery::Poll && asked.poll.limit == 0 {
        assert_eq!((asked.start, &asked.fold), (Start::Live, &None));
        return "position";
    }
    assert_eq!(asked.slow == Slow::LATEST, one("slow") == Some("latest"));
    let rewind = one("rewind").and_then(|text| text.parse().ok());
    let folds = rewind.is_some() || one("latest").is_some();
    let is_start = matches!(asked.start, Start::Held | Start::Since(_));
    assert_eq!(asked.fold.is_some(), folds && is_start, "a reader that resumes gets all events");
    let count = asked.fold.as_ref().map(|rule| rule.count);
    assert!(count.is_none_or(|count| count == rewind.unwrap_or(1)));
    let of_query = one("last_event_id").filter(|id| !id.is_empty());
    match (header_id(request), of_query, one("since").filter(|since| !since.is_empty())) {
        (Some(Ok(id)), ..) => {
            assert_eq!((asked.start, asked.id), (Start::After(id), Some(id)));
            "after-header"
        }
        (Some(Err(())), ..) => {
            assert_eq!((asked.start, asked.id), (Start::Unknown, None));
            "unknown-id"
        }
        (None, Some(text), _) => {
            let id = text.parse().expect("it is an id");
            assert_eq!((asked.start, asked.id), (Start::After(id), Some(id)));
            "after-query"
        }
        (None, None, Some(since)) => {
            assert!(matches!(asked.start, Start::Since(_)) && asked.id.is_none(), "{since:?}");
            "since"
        }
        (None, None, None) if folds => {
            assert_eq!((asked.start, asked.id), (Start::Held, None));
            "held"
        }
        (None, None, None) => {
            assert_eq!((asked.start, asked.id), (Start::Live, None));
            "live"
        }
    }
}

/// What the trusted proxies have added to `X-Forwarded-For` is all that counts: nothing that stands
/// left of it changes whose a stream is.
fn counts_from_the_right(request: &HttpRequest) {
    let fields: Vec<_> = request.headers().get_all("x-forwarded-for").collect();
    let all = fields.iter().map(|field| field.as_bytes()).collect::<Vec<_>>().join(&b',');
    let mut from_right = all.rsplit(|byte| *byte == b',').filter(|_| !fields.is_empty());
    for proxies in 1..4 {
        let entry = from_right.next().and_then(|entry| str::from_utf8(entry.trim_ascii()).ok());
        let want = entry.and_then(|entry| {
            let bare = entry.trim_matches(['[', ']']).parse().ok();
            bare.or(entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        });
        let want = want.map_or(PEER, network);
        assert_eq!(client_address(request.head(), proxies), Some(want), "{fields:?}");
    }
    assert_eq!(client_address(request.head(), 0), Some(PEER));
}

/// All of 64 bits of IPv6 are one address, and an IPv4 address is one however it is written.
fn network(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, ..] = v6.segments();
    v6.to_ipv4_mapped().map_or(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(), IpAddr::V4)
}

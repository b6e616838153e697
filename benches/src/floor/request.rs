//! The two requests that the floor knows.

use crate::Result;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Push { topic: &'a str, body: &'a [u8] },
    Stream { topic: &'a str, last_id: Option<u64> },
}

/// Takes a request from the front. None while it is not all there; else with its length.
///
/// # Errors
/// When it is another one.
pub fn parse(input: &[u8]) -> Result<Option<(Request<'_>, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(input)? else { return Ok(None) };
    let header = |name: &str| {
        let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()?.parse::<u64>().ok()
    };
    let path = parsed.path.unwrap_or_default();
    if let Some(topic) = path.strip_prefix("/push/") {
        let length = head + header("content-length").unwrap_or(0) as usize;
        let body = input.get(head..length);
        return Ok(body.map(|body| (Request::Push { topic, body }, length)));
    }
    let topic = path.strip_prefix("/events?topic=").ok_or("another path")?;
    Ok(Some((Request::Stream { topic, last_id: header("last-event-id") }, head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_or_not_there() {
        let push = b"POST /push/t1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST";
        for at in 0..push.len() - 4 {
            assert_eq!(parse(&push[..at]).unwrap(), None);
        }
        let (request, length) = parse(push).unwrap().unwrap();
        assert_eq!(request, Request::Push { topic: "t1", body: b"hello" });
        assert_eq!(length, push.len() - 4);
        let get = b"GET /events?topic=t1 HTTP/1.1\r\nLast-Event-ID: 7\r\n\r\n";
        let wanted = Request::Stream { topic: "t1", last_id: Some(7) };
        assert_eq!(parse(get).unwrap(), Some((wanted, get.len())));
    }
}

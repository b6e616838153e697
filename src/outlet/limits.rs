//! How much one reader, or one address, may have at once.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::HttpRequest;

/// The limits of streams beside the total.
#[derive(Debug)]
pub struct StreamLimits {
    /// How many proxies in front add the address they see to `X-Forwarded-For`.
    trusted_proxies: usize,
    by_subject: Arc<Counts<Arc<str>>>,
    by_address: Arc<Counts<IpAddr>>,
}

/// Which limit was met: as in a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    Subject,
    Address,
}

impl Met {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Address => "address",
        }
    }
}

/// A stream is counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    _subject: Option<One<Arc<str>>>,
    _address: Option<One<IpAddr>>,
}

/// How many there are of each.
#[derive(Debug)]
struct Counts<K> {
    /// 0 for no limit.
    max: usize,
    by_key: Mutex<HashMap<K, usize>>,
}

#[derive(Debug)]
struct One<K: Hash + Eq> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, by_key: Mutex::default() })
    }

    /// One more, unless there are as many as there may be.
    fn one_more(self: &Arc<Self>, key: Option<K>) -> Result<Option<One<K>>, ()> {
        let Some(key) = key.filter(|_| 0 < self.max) else { return Ok(None) };
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_key.entry(key.clone()).or_default();
        if self.max <= *count {
            return Err(());
        }
        *count += 1;
        Ok(Some(One { counts: Arc::clone(self), key }))
    }
}

impl<K: Hash + Eq> Drop for One<K> {
    fn drop(&mut self) {
        let mut by_key = self.counts.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                by_key.remove(&self.key);
            }
        }
    }
}

impl StreamLimits {
    /// 0 is no limit.
    pub fn new(per_subject: usize, per_address: usize, trusted_proxies: usize) -> Self {
        Self {
            trusted_proxies,
            by_subject: Counts::new(per_subject),
            by_address: Counts::new(per_address),
        }
    }

    /// Counts one more stream.
    ///
    /// # Errors
    /// With the limit that it would go beyond.
    pub fn one_more(
        &self,
        request: &HttpRequest,
        subject: Option<&Arc<str>>,
    ) -> Result<Counted, Met> {
        let address = client_address(request, self.trusted_proxies);
        Ok(Counted {
            _subject: self.by_subject.one_more(subject.cloned()).map_err(|()| Met::Subject)?,
            _address: self.by_address.one_more(address).map_err(|()| Met::Address)?,
        })
    }
}

/// Who asks. Each of the trusted proxies has added the address that it saw at the end of
/// `X-Forwarded-For`, so the client's stands so many from the right: what is left of that anybody
/// can have written. One that has too few entries did not come through them.
pub fn client_address(request: &HttpRequest, trusted_proxies: usize) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let Some(from_right) = trusted_proxies.checked_sub(1) else { return peer };
    let fields: Vec<_> = request.headers().get_all("x-forwarded-for").collect();
    let entries = fields.iter().rev().filter_map(|field| field.to_str().ok());
    let mut entries = entries.flat_map(|field| field.rsplit(',')).map(str::trim);
    entries.nth(from_right).and_then(address).or(peer)
}

/// With or without a port, as some proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().map(|address| address.ip());
    text.trim_matches(['[', ']']).parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_client_is_counted_from_the_right() {
        let request = |fields: &[&str]| {
            let mut request = TestRequest::default().peer_addr(([10, 0, 0, 1], 1).into());
            for field in fields {
                request = request.append_header(("X-Forwarded-For", *field));
            }
            request.to_http_request()
        };
        for (fields, proxies, expected) in [
            (&["6.6.6.6, 1.2.3.4"][..], 0, "10.0.0.1"),
            (&["6.6.6.6, 1.2.3.4"], 1, "1.2.3.4"),
            (&["6.6.6.6, 1.2.3.4, 35.0.0.1"], 2, "1.2.3.4"),
            (&["6.6.6.6", "1.2.3.4,35.0.0.1"], 2, "1.2.3.4"),
            (&["[2001:db8::1]:443"], 1, "2001:db8::1"),
            (&["1.2.3.4:5"], 1, "1.2.3.4"),
            (&["unknown"], 1, "10.0.0.1"),
            (&["1.2.3.4"], 2, "10.0.0.1"),
            (&[], 1, "10.0.0.1"),
        ] {
            let found = client_address(&request(fields), proxies).unwrap();
            assert_eq!(found.to_string(), expected, "{fields:?} {proxies}");
        }
    }

    #[test]
    fn what_has_ended_counts_no_more() {
        let limits = StreamLimits::new(2, 0, 0);
        let request = TestRequest::default().to_http_request();
        let alice: Arc<str> = "alice".into();
        let open = || limits.one_more(&request, Some(&alice));
        let (first, second) = (open().unwrap(), open().unwrap());
        assert!(matches!(open(), Err(Met::Subject)));
        assert!(limits.one_more(&request, Some(&"bob".into())).is_ok());
        assert!(limits.one_more(&request, None).is_ok());
        drop(first);
        assert!(open().is_ok());
        drop(second);
        assert!(limits.by_subject.by_key.lock().unwrap().is_empty());
    }
}

//! Trace context of a message, which its publisher sent as an attribute in the format of W3C Trace
//! Context (<https://www.w3.org/TR/trace-context/>).

use std::collections::BTreeMap;

/// Position in a trace: the span of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Id of the trace, not 0.
    pub trace_id: u128,
    /// Id of the publisher's span, not 0.
    pub span_id: u64,
    /// True if the publisher records the trace.
    pub is_sampled: bool,
}

/// Attributes that can hold the context: the one of Google's client libraries, and the one of
/// CloudEvents and other libraries.
const ATTRIBUTES: [&str; 2] = ["googclient_traceparent", "traceparent"];

impl TraceContext {
    /// Returns the context in the attributes of a message. `None` if there is none, or if it is
    /// malformed.
    pub fn of(attributes: &BTreeMap<String, String>) -> Option<Self> {
        Self::find(|name| attributes.get(name).map(String::as_str))
    }

    /// Returns the context in attributes that `attribute` looks up by name.
    pub(crate) fn find<'a>(attribute: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        ATTRIBUTES.into_iter().find_map(|name| Self::parse(attribute(name)?))
    }

    /// Parses a `traceparent`. A version after 00 may add fields.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            let is_valid = part.bytes().all(is_hex);
            u128::from_str_radix(part, 16).ok().filter(|_| is_valid)
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let has_more = parts.next().is_some();
        let is_known = version != 0xff && (version != 0 || !has_more);
        let span_id = u64::try_from(span_id).ok()?;
        let is_valid = is_known && trace_id != 0 && span_id != 0;
        is_valid.then_some(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn context(is_sampled: bool) -> TraceContext {
        let trace_id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        TraceContext { trace_id, span_id: 0x00f0_67aa_0ba9_02b7, is_sampled }
    }

    #[test]
    fn a_traceparent_is_parsed() {
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            assert_eq!(TraceContext::parse(&text), Some(context(is_sampled)), "{text}");
        }
        let later = format!("cc-{TRACE}-{SPAN}-01-what-comes-later");
        assert_eq!(TraceContext::parse(&later), Some(context(true)));
    }

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        let (zeros, upper) = ("0".repeat(32), TRACE.to_uppercase());
        for text in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{TRACE}-+0f067aa0ba902b7-01"),
            format!("00-{TRACE}0-{SPAN}-01"),
        ] {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn the_attribute_of_googles_libraries_comes_first() {
        let other = format!("00-{}-{SPAN}-01", "a".repeat(32));
        let text = format!("00-{TRACE}-{SPAN}-01");
        let attributes = |all: &[(&str, &String)]| {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect()
        };
        let both = attributes(&[("traceparent", &other), ("googclient_traceparent", &text)]);
        assert_eq!(TraceContext::of(&both), Some(context(true)));
        assert_eq!(TraceContext::of(&attributes(&[("traceparent", &text)])), Some(context(true)));
        assert_eq!(TraceContext::of(&attributes(&[("other", &text)])), None);
    }
}

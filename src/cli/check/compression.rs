//! Check of compression: a proxy that compresses a stream can hold events back until its buffer
//! is full.

use reqwest::header;

use crate::cli::check::{finding::Finding, probe::Probe, settings::COMPRESSION, stream::Stream};

const CHECK: &str = "compression";

/// Encodings that browsers accept.
const BROWSERS: &str = "gzip, deflate, br, zstd";

/// Opens a stream as a browser does, and looks at its encoding.
pub(super) async fn check(probe: &Probe) -> Finding {
    let Ok(stream) = Stream::open(probe, None, BROWSERS).await else {
        return Finding::not_checked(CHECK, "a client that accepts gzip got no stream");
    };
    let encoding = stream.response.headers().get(header::CONTENT_ENCODING);
    match encoding.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()) {
        None => Finding::good(CHECK, "the stream is not compressed"),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => {
            Finding::good(CHECK, "the stream is not compressed")
        }
        Some(encoding) => {
            let text = format!(
                "a proxy compresses the stream ({encoding}), and can hold events back until its \
                 buffer is full. The gateway sends plain text. Expected no Content-Encoding"
            );
            Finding::problem(CHECK, text, COMPRESSION)
        }
    }
}

//! Checks of a gateway that runs, seen through its proxies. A check waits for at most 10 s for each
//! answer, and only the last one takes the time of `--watch`.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};

use crate::cli::check::{
    compression,
    finding::{Finding, Report},
    http2, preflight,
    probe::{ANSWER_MAX, Probe, Target},
    push, resume,
    settings::{BUFFERING, TOKEN},
    stream::{NoStream, Stream, member},
    watch,
};

/// Limit on the time from the head of a stream to its first block, which the gateway sends at once.
const FIRST_BLOCK_MAX: Duration = Duration::from_secs(5);

/// Checks that need a stream.
const STREAM_CHECKS: [&str; 4] = ["compression", "resume", "keep-alive", "cut"];

/// Runs all checks of a gateway, and adds their findings to the report.
///
/// # Errors
/// Fails if the HTTP client cannot be made.
pub(super) async fn check(target: Target, report: &mut Report) -> reqwest::Result<()> {
    let mut probe = Probe::new(target)?;
    let opened = Stream::open(&probe, None, "identity").await;
    let is_unreachable = matches!(opened, Err(NoStream::Unreachable(_)));
    let first = match opened {
        Ok(stream) => {
            report.add(Finding::good("open", format!("{} is a stream", probe.target.shown())));
            // After a redirect, for example to https://, all checks use the new URL.
            probe.target.follow(stream.response.url());
            first_block(stream, report).await
        }
        Err(NoStream::Silent) if answers_head(&probe).await => {
            let text = format!("{} answers the head of a stream (HEAD)", probe.target.shown());
            report.add(Finding::good("open", text));
            report.add(held_back("nothing of the stream", ANSWER_MAX));
            None
        }
        Err(reason) => {
            report.add(no_stream(&probe, reason));
            None
        }
    };
    if is_unreachable {
        return Ok(());
    }
    if let Some(id) = first {
        report.add(compression::check(&probe).await);
        report.add(resume::check(&probe, id).await);
        others(&probe, report).await;
        report.note(&format!("watching a stream for {} s", probe.target.watch.as_secs()));
        for finding in watch::check(&probe).await {
            report.add(finding);
        }
    } else {
        for check in STREAM_CHECKS {
            report.add(Finding::not_checked(check, "there is no stream that begins at once"));
        }
        others(&probe, report).await;
    }
    Ok(())
}

/// Runs the checks that need no stream.
async fn others(probe: &Probe, report: &mut Report) {
    report.add(preflight::check(probe).await);
    report.add(http2::check(probe).await);
    report.add(push::check(probe).await);
}

/// Waits for the first block of a stream. Returns the id of the block, if the block came at once.
async fn first_block(mut stream: Stream, report: &mut Report) -> Option<String> {
    let begin = Instant::now();
    let Some(first) = stream.next(FIRST_BLOCK_MAX).await else {
        report.add(held_back("the head of the answer came, and no block", FIRST_BLOCK_MAX));
        return None;
    };
    match first.event.as_str() {
        "stream-open" => {
            let waited = begin.elapsed().as_millis();
            let text = format!("the first block came {waited} ms after the head of the answer");
            report.add(Finding::good("buffering", text));
            Some(first.id)
        }
        "stream-end" => {
            let reason = member(&first, "reason");
            let text = format!("the gateway takes no reader now (stream-end, {reason})");
            report.add(Finding::not_checked("buffering", text));
            None
        }
        other => {
            let text = format!(
                "the first block is of the type {other:?}. Expected stream-open: is this a gateway?"
            );
            report.add(Finding::problem("buffering", text, &[]));
            None
        }
    }
}

/// Returns true if the gateway answers a request for the head of a stream.
async fn answers_head(probe: &Probe) -> bool {
    let head = probe.read(Method::HEAD).timeout(ANSWER_MAX).send().await;
    head.is_ok_and(|head| head.status() == StatusCode::OK)
}

/// Returns the finding about a stream of which too little came within `limit`.
fn held_back(came: &str, limit: Duration) -> Finding {
    let text = format!(
        "{came} within {} s. Expected the first block at once: a proxy holds the stream back until \
         its buffer is full",
        limit.as_secs()
    );
    Finding::problem("buffering", text, BUFFERING)
}

/// Returns the finding about a stream that was not opened.
fn no_stream(probe: &Probe, reason: NoStream) -> Finding {
    let shown = probe.target.shown();
    match reason {
        NoStream::Unreachable(problem) => {
            Finding::problem("open", format!("{shown} cannot be reached: {problem}"), &[])
        }
        NoStream::Silent => {
            let text = format!(
                "{shown} did not answer within {} s. Expected a stream at once",
                ANSWER_MAX.as_secs()
            );
            Finding::problem("open", text, &[])
        }
        NoStream::Refused(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, detail)
            if !probe.has_token() =>
        {
            Finding::not_checked("open", format!("{shown} wants a token{detail}. Give --token"))
        }
        NoStream::Refused(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, detail) => {
            Finding::problem("open", format!("{shown} refuses the token{detail}"), TOKEN)
        }
        NoStream::Refused(status, detail) => Finding::problem(
            "open",
            format!("{shown} answered {status}{detail}. Expected 200 and a stream"),
            &[],
        ),
        NoStream::OtherType(media) => {
            let text = format!(
                "the answer of {shown} is {media}. Expected text/event-stream: does the proxy pass \
                 this path on to the gateway?"
            );
            Finding::problem("open", text, &[])
        }
    }
}

//! Checks that take time: whether the stream is cut, and whether its keep-alives arrive.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::cli::check::{
    finding::Finding,
    probe::Probe,
    settings::{BUFFERING, CUT},
    stream::{Part, Stream, member},
};

/// Silence after which keep-alives count as held back: more than twice the default `--keep-alive`.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// End of the watch.
#[derive(Debug)]
enum End {
    /// The time is over.
    Time,
    /// The gateway said that it ends the stream, and why.
    Gateway(String),
    /// The stream was cut.
    Cut(&'static str),
    /// Too many bytes came.
    TooMuch,
}

/// Reads a stream for the time of `--watch`. Returns the findings about cuts and keep-alives.
pub(super) async fn check(probe: &Probe) -> [Finding; 2] {
    let Ok(mut stream) = Stream::open(probe, None, "identity").await else {
        let problem = "a further connection got no stream";
        return ["cut", "keep-alive"].map(|check| Finding::not_checked(check, problem));
    };
    let limit = probe.target.watch;
    let begin = Instant::now();
    let (mut last, mut longest) = (begin, Duration::ZERO);
    let end = loop {
        let mut events = std::iter::from_fn(|| stream.take());
        if let Some(event) = events.find(|event| event.event == "stream-end") {
            break End::Gateway(member(&event, "reason"));
        }
        let left = limit.saturating_sub(begin.elapsed());
        let part = timeout(left, stream.part()).await;
        longest = longest.max(last.elapsed());
        match part {
            Err(_) => break End::Time,
            Ok(Part::Bytes) => last = Instant::now(),
            Ok(Part::Cut(how)) => break End::Cut(how),
            Ok(Part::TooMuch) => break End::TooMuch,
        }
    };
    let watched = begin.elapsed();
    [cut(&end, watched, last.elapsed()), keep_alive(longest, watched)]
}

/// Returns the finding about cuts. `silence` is the time since the last byte.
fn cut(end: &End, watched: Duration, silence: Duration) -> Finding {
    let after = format!("{:.1} s", watched.as_secs_f64());
    match end {
        End::Time => {
            let text = format!(
                "the stream was not cut within {after}. A longer --watch finds longer limits: \
                 Cloud Run's default is 300 s"
            );
            Finding::good("cut", text)
        }
        End::Gateway(reason) if reason == "max-age" => {
            let text = format!("the gateway itself ended the stream after {after} (max-age)");
            Finding::good("cut", text)
        }
        End::Gateway(reason) => {
            let text = format!("the gateway itself ended the stream after {after} ({reason})");
            Finding::not_checked("cut", text)
        }
        End::Cut(how) => {
            let text = format!(
                "the stream was cut after {after}, and {:.1} s after its last byte ({how}). \
                 Expected a stream that lives as long as --stream-age-max",
                silence.as_secs_f64()
            );
            Finding::problem("cut", text, CUT)
        }
        End::TooMuch => {
            let text = format!("more than 16 MiB came within {after}, and no more were read");
            Finding::not_checked("cut", text)
        }
    }
}

/// Returns the finding about keep-alives.
fn keep_alive(longest: Duration, watched: Duration) -> Finding {
    let silence = format!("{:.1} s", longest.as_secs_f64());
    if SILENCE_MAX <= longest {
        let text = format!(
            "nothing came for {silence}. Expected a comment every 15 s: a proxy holds small pieces \
             back, or --keep-alive is longer"
        );
        return Finding::problem("keep-alive", text, BUFFERING);
    }
    if watched < SILENCE_MAX {
        let text = format!(
            "the stream was watched for {:.1} s. This check needs a --watch of more than {} s, and no \
             cut",
            watched.as_secs_f64(),
            SILENCE_MAX.as_secs()
        );
        return Finding::not_checked("keep-alive", text);
    }
    Finding::good("keep-alive", format!("the longest silence was {silence}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::finding::Verdict;

    #[test]
    fn silence_of_two_keep_alives_is_a_problem() {
        for (longest, watched, verdict) in [
            (15, 70, Verdict::Good),
            (39, 70, Verdict::Good),
            (41, 70, Verdict::Problem),
            (41, 41, Verdict::Problem),
            (30, 30, Verdict::NotChecked),
        ] {
            let [longest, watched] = [longest, watched].map(Duration::from_secs);
            assert_eq!(keep_alive(longest, watched).verdict, verdict, "{longest:?}");
        }
    }
}

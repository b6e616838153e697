//! Polls: `GET /events` with `mode=poll` answers with a page of events, and not with a stream.

mod answer;
mod encode;
mod page;

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use actix_web::{HttpResponse, http::StatusCode};
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

pub(super) use answer::head;
pub(super) use encode::{POLL_CLOUD_EVENTS, POLL_MESSAGES};
use page::Page;

use crate::{
    http::problem::come_back_later,
    hub::Subscriber,
    limits::budget::Budget,
    model::control::{Control, EndReason, refusal_wait},
    net::http1::peer_closed::PeerClosed,
    stream::{
        request::PollOptions,
        session::{Next, Session},
    },
};

/// Time that a poll without `wait=` waits for the log.
const LOG_WAIT: Duration = Duration::from_secs(5);

/// Reads a page from a stream that was just opened. A wait ends when `client` has left.
///
/// # Errors
/// Returns the reason for which the reader is to come back later. The refusal is counted.
pub(super) async fn read(
    mut session: Session,
    options: &PollOptions,
    budget: &Arc<Budget>,
    client: Option<&PeerClosed>,
) -> Result<Page, EndReason> {
    let begun = Instant::now();
    let (deadline, log_deadline) = (begun + options.wait, begun + options.wait.max(LOG_WAIT));
    let mut page = Page::new(options.limit, budget);
    loop {
        match session.next(Instant::now()) {
            Next::Give(bytes) => {
                page.push(&bytes).map_err(|reason| count_refusal(&session, reason))?;
            }
            Next::Say(Control::Open(open)) => page.set_next(open.id),
            Next::Say(Control::Checkpoint(id)) => page.set_next(id),
            Next::Say(Control::Gap(gap)) => page.push_gap(*gap),
            Next::Say(Control::End(end)) if page.next().is_none() => return Err(end.reason),
            Next::FellBehind if page.is_empty() => {
                return Err(count_refusal(&session, EndReason::Busy));
            }
            Next::FellBehind => {
                page.cut();
                break;
            }
            Next::Say(Control::End(_)) | Next::Finished => break,
            Next::Say(
                Control::Auth(_)
                | Control::Folded(_)
                | Control::Presence(_)
                | Control::KeepAlive
                | Control::Waiting,
            ) => {}
            Next::Yield => yield_now().await,
            Next::WaitUntil(until) => {
                let is_open = session.subscriber().is_some();
                let has_left = client.is_some_and(PeerClosed::is_set);
                if is_open && (page.has_news() || deadline <= Instant::now() || has_left) {
                    break;
                }
                if log_deadline <= Instant::now() || has_left {
                    return Err(count_refusal(&session, EndReason::Unready));
                }
                wait(&session, until.min(if is_open { deadline } else { log_deadline })).await;
            }
        }
        if page.is_full() {
            break;
        }
    }
    let position = session.subscriber().map(|at| (at.cursor(), Subscriber::has_more(at)));
    page.finish(position);
    session.finish("poll");
    Ok(page)
}

/// Counts a refusal, and returns its reason.
fn count_refusal(session: &Session, reason: EndReason) -> EndReason {
    session.context().metrics.streams_refused.with_label_values(&[reason.as_str()]).inc();
    reason
}

/// Waits until the session has more to do, but not beyond `until`.
async fn wait(session: &Session, until: Instant) {
    let mut timer = pin!(sleep_until(until));
    let mut is_registered = false;
    poll_fn(|cx| {
        if is_registered || timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        session.wait(cx.waker());
        is_registered = true;
        Poll::Pending
    })
    .await;
}

/// Answers that the reader is to come back later.
pub(super) fn refusal(reason: EndReason) -> HttpResponse {
    let text = match reason {
        EndReason::Draining => "this gateway is shutting down",
        EndReason::Busy => "this gateway has too many streams or polls: try again later",
        _ => "the gateway has not read the log (Redis, --backplane) as far yet: try again later",
    };
    come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, refusal_wait())
}

//! Messages to many streams, on a schedule or as fast as it goes; and pushes that nobody reads.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::{
    Result,
    arguments::{Common, Fanout, Ingest},
    client::{Client, Patience},
    report::Window,
    socket::raise_file_limit,
    tally::Shape,
};

/// When messages are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Messages per second.
    Rate(f64),
    /// Greatest number of messages that not every stream has received yet.
    Closed(usize),
}

/// How many messages.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Messages(usize),
    Time(Duration),
}

/// Messages on their way in a warm-up.
const WARM_UP: Pace = Pace::Closed(16);
const WARM_UP_MESSAGES: usize = 20;

pub fn run(common: &Common, fanout: &Fanout) -> Result<(Map<String, Value>, Client)> {
    raise_file_limit();
    let shape = Shape {
        streams: fanout.streams,
        topics: fanout.topics,
        per_stream: fanout.topics_per_stream.min(fanout.topics),
    };
    let mut client = Client::new(common.target()?, shape, common.size, fanout.publishers, 0)?;
    client.open(0..fanout.streams, None)?;
    // Every topic has an event before it counts.
    publish(&mut client, WARM_UP, Until::Messages(WARM_UP_MESSAGES.max(fanout.topics)))?;
    let pace = fanout.rate.map_or(Pace::Closed(fanout.closed.unwrap_or(1)), Pace::Rate);
    measure(common, client, pace, fanout.seconds)
}

pub fn ingest(common: &Common, ingest: &Ingest) -> Result<(Map<String, Value>, Client)> {
    let shape = Shape { streams: 0, topics: 1, per_stream: 1 };
    let mut client = Client::new(common.target()?, shape, common.size, ingest.connections, 0)?;
    publish(&mut client, WARM_UP, Until::Time(Duration::from_millis(500)))?;
    measure(common, client, Pace::Closed(usize::MAX), ingest.seconds)
}

fn measure(
    common: &Common,
    mut client: Client,
    pace: Pace,
    seconds: f64,
) -> Result<(Map<String, Value>, Client)> {
    let window = Window::begin(&mut client, common.process());
    let late = publish(&mut client, pace, Until::Time(Duration::from_secs_f64(seconds)))?;
    let mut found = window.end(&client);
    client.tally.compare_orders();
    found.insert("late_ms".to_owned(), json!(late.as_secs_f64() * 1e3));
    Ok((found, client))
}

/// Publishes to the topics in turn, and returns when everything has arrived: by how much a message
/// was late at most, because all publishers were waiting for their answers.
pub fn publish(client: &mut Client, pace: Pace, until: Until) -> Result<Duration> {
    let (began, mut patience) = (Instant::now(), Patience::new());
    let (mut sent, mut late) = (0, Duration::ZERO);
    let total = match (pace, until) {
        (_, Until::Messages(messages)) => messages,
        (Pace::Rate(rate), Until::Time(time)) => (rate * time.as_secs_f64()).ceil() as usize,
        (Pace::Closed(_), Until::Time(_)) => usize::MAX,
    };
    loop {
        let now = began.elapsed();
        let over = matches!((pace, until), (Pace::Closed(_), Until::Time(time)) if time <= now);
        let all_sent = over || sent == total;
        if all_sent && client.is_settled() {
            return Ok(late);
        }
        let due = match pace {
            Pace::Rate(rate) => Duration::from_secs_f64(sent as f64 / rate),
            Pace::Closed(_) => now,
        };
        let may_send = match pace {
            Pace::Rate(_) => due <= now,
            Pace::Closed(most) => client.tally.unfinished < most,
        };
        if !all_sent
            && may_send
            && let Some(publisher) = client.free_publisher()
        {
            let topic = client.tally.messages() as usize % client.shape.topics;
            client.publish(publisher, topic)?;
            late = late.max(now.saturating_sub(due));
            sent += 1;
            continue;
        }
        // A message that is due waits for an answer, and the others for their time.
        let wait = if all_sent || due <= now {
            Duration::from_millis(100)
        } else {
            due.saturating_sub(now)
        };
        client.turn(Some(wait.min(Duration::from_millis(100))))?;
        patience.check(client)?;
    }
}

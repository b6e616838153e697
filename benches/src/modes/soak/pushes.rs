//! What is published, and when: quiet times, some messages a second, bursts of thousands. Each
//! topic has one connection with one request outstanding, so its events have an order.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;

use super::{check::Check, random::Random};
use crate::{
    Result,
    clock::now_ns,
    dialect::Target,
    http::Response,
    payload::Payload,
    socket::{self, Poll},
};

/// Tokens of publishers have this bit.
pub const PUBLISHER: u64 = 1 << 32;
/// Of a text.
const SIZES: (f64, f64) = (200.0, 20_000.0);
/// Messages of a burst.
const BURST: (f64, f64) = (500.0, 4_000.0);
/// A push that was refused is sent again after so long.
const AGAIN_NS: u64 = 200_000_000;

#[derive(Debug, Default)]
struct Publisher {
    socket: Option<OwnedFd>,
    response: Response,
    request: Vec<u8>,
    is_busy: bool,
    /// Its message is to be sent (again) then.
    again_ns: Option<u64>,
    /// Messages that are due.
    due: u32,
}

#[derive(Debug)]
pub struct Pushes {
    target: Target,
    publishers: Vec<Publisher>,
    /// Up to when it goes on at this rate.
    until_ns: u64,
    rate: f64,
    owed: f64,
    at_ns: u64,
    /// A second, less in short runs.
    unit_ns: f64,
    pub bursts: u64,
    /// Answers but 2xx, and connections that closed before they answered: sent again.
    pub repeated: u64,
}

impl Pushes {
    pub fn new(target: Target, topics: usize, run_s: f64) -> Self {
        Self {
            target,
            publishers: (0..topics).map(|_| Publisher::default()).collect(),
            until_ns: 0,
            rate: 0.0,
            owed: 0.0,
            at_ns: now_ns(),
            unit_ns: (run_s / 60.0).clamp(0.02, 1.0) * 1e9,
            bursts: 0,
            repeated: 0,
        }
    }

    /// Goes on with the time.
    pub fn plan(&mut self, random: &mut Random, now_ns: u64) {
        let passed_s = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        self.at_ns = now_ns;
        self.owed += self.rate * passed_s;
        let topics = self.publishers.len();
        while 1.0 <= self.owed {
            self.owed -= 1.0;
            self.publishers[random.below(topics)].due += 1;
        }
        if now_ns < self.until_ns {
            return;
        }
        let (rate, units) = match random.below(8) {
            0..3 => (0.0, random.between(1.0, 8.0)),
            3..7 => (random.between(1.0, 10.0), random.between(2.0, 15.0)),
            _ => {
                self.burst(random);
                (0.0, random.between(1.0, 5.0))
            }
        };
        self.rate = rate;
        self.until_ns = now_ns + (units * self.unit_ns) as u64;
    }

    /// To one topic, or to all.
    fn burst(&mut self, random: &mut Random) {
        self.bursts += 1;
        let messages = random.between(BURST.0, BURST.1) as u32;
        let topics = self.publishers.len();
        if random.below(2) == 0 {
            self.publishers[random.below(topics)].due += messages;
        } else {
            (0..messages).for_each(|_| self.publishers[random.below(topics)].due += 1);
        }
    }

    /// What is due and not sent yet will not be sent.
    pub fn stop(&mut self) {
        self.publishers.iter_mut().for_each(|publisher| publisher.due = 0);
    }

    pub fn is_settled(&self) -> bool {
        self.publishers.iter().all(|publisher| !publisher.is_busy && publisher.due == 0)
    }

    /// Sends what is due where the last one was answered.
    pub fn send(&mut self, check: &mut Check, random: &mut Random, poll: &Poll) -> Result<()> {
        let now_ns = now_ns();
        for topic in 0..self.publishers.len() {
            let publisher = &mut self.publishers[topic];
            if !publisher.is_busy && 0 < publisher.due {
                publisher.due -= 1;
                publisher.is_busy = true;
                publisher.again_ns = Some(now_ns);
                // Mostly small, at times large.
                let size = (SIZES.0 * (SIZES.1 / SIZES.0).powf(random.unit().powi(3))) as usize;
                let message = check.messages() as u32;
                let sequence = check.published(topic, size);
                let number = topic as u32;
                let payload = Payload {
                    topic: number,
                    publisher: number,
                    sequence,
                    message,
                    sent_ns: now_ns,
                };
                let mut text = Vec::new();
                payload.write(size, &mut text);
                self.target.post(topic, &text, message, &mut publisher.request);
            }
            if publisher.again_ns.is_none_or(|at| now_ns < at) {
                continue;
            }
            if publisher.socket.is_none() {
                let socket = socket::dial(self.target.address, topic)?;
                poll.add(&socket, PUBLISHER | topic as u64, EventFlags::IN)?;
                publisher.socket = Some(socket);
                publisher.response.reset();
            }
            let socket = publisher.socket.as_ref().ok_or("it is not connected")?;
            publisher.again_ns = None;
            if socket::write_all(socket, &publisher.request).is_err() {
                // The server closed it, as it was idle.
                self.repeat(topic, now_ns);
            }
        }
        Ok(())
    }

    /// On a new connection. The message has the same id, so it is not shown twice.
    fn repeat(&mut self, topic: usize, now_ns: u64) {
        let publisher = &mut self.publishers[topic];
        publisher.socket = None;
        if publisher.is_busy {
            self.repeated += 1;
            publisher.again_ns = Some(now_ns + AGAIN_NS);
        }
    }

    pub fn read(&mut self, topic: usize, buffer: &mut [u8]) {
        let publisher = &mut self.publishers[topic];
        let Some(socket) = &publisher.socket else { return };
        let went = match socket::read(socket, buffer) {
            Ok(None) => return,
            Ok(Some(0)) | Err(_) => false,
            Ok(Some(length)) => publisher.response.feed(&buffer[..length], &mut |_| ()).is_ok(),
        };
        let response = &mut publisher.response;
        if !went || (response.is_done() && !(200..300).contains(&response.status)) {
            self.repeat(topic, now_ns());
        } else if response.is_done() {
            response.reset();
            publisher.is_busy = false;
        }
    }

    pub fn close(&mut self) {
        self.publishers.iter_mut().for_each(|publisher| publisher.socket = None);
    }
}

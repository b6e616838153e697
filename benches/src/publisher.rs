//! A publisher's connection: kept alive, with one request outstanding.

use std::os::fd::OwnedFd;

use crate::{Result, clock::now_ns, dialect::Target, http::Response, payload::Payload, socket};

#[derive(Debug)]
pub struct Publisher {
    /// None before the first message: servers close connections that ask for nothing.
    pub socket: Option<OwnedFd>,
    response: Response,
    pub is_busy: bool,
    number: u32,
    /// For each topic the last sequence.
    sequences: Vec<u32>,
    text: Vec<u8>,
    request: Vec<u8>,
}

impl Publisher {
    pub fn new(number: usize, topics: usize) -> Self {
        Self {
            socket: None,
            response: Response::default(),
            is_busy: false,
            number: number as u32,
            sequences: vec![0; topics],
            text: Vec::new(),
            request: Vec::new(),
        }
    }

    /// Sends a message.
    pub fn send(
        &mut self,
        target: &Target,
        topic: usize,
        message: u32,
        size: usize,
    ) -> Result<Payload> {
        self.sequences[topic] += 1;
        let payload = Payload {
            topic: topic as u32,
            publisher: self.number,
            sequence: self.sequences[topic],
            message,
            sent_ns: now_ns(),
        };
        self.text.clear();
        payload.write(size, &mut self.text);
        target.post(topic, &self.text, message, &mut self.request);
        let socket = self.socket.as_ref().ok_or("the publisher is not connected")?;
        socket::write_all(socket, &self.request)?;
        self.is_busy = true;
        Ok(payload)
    }

    /// Takes what was read. Ready for the next message when the answer is there.
    pub fn feed(&mut self, input: &[u8]) -> Result<()> {
        if input.is_empty() && !self.is_busy {
            // Idle for too long. The next message has a new connection.
            self.socket = None;
            return Ok(());
        }
        if input.is_empty() {
            return Err("the server closed a connection instead of answering a push".into());
        }
        self.response.feed(input, &mut |_| ())?;
        if self.response.is_done() {
            if !(200..300).contains(&self.response.status) {
                return Err(format!("a push was answered {}", self.response.status).into());
            }
            self.response.reset();
            self.is_busy = false;
        }
        Ok(())
    }
}

//! A publisher's connection: kept alive, with one request outstanding.

use std::os::fd::OwnedFd;

use crate::{
    Result,
    dialect::Target,
    http::Response,
    payload::Payload,
    socket,
    {clock::now_ns, socket::dial},
};

#[derive(Debug)]
pub struct Publisher {
    pub socket: OwnedFd,
    response: Response,
    pub is_busy: bool,
    number: u32,
    /// For each topic the last sequence.
    sequences: Vec<u32>,
    text: Vec<u8>,
    request: Vec<u8>,
}

impl Publisher {
    pub fn new(target: &Target, number: usize, topics: usize) -> Result<Self> {
        Ok(Self {
            socket: dial(target.address, number)?,
            response: Response::default(),
            is_busy: false,
            number: number as u32,
            sequences: vec![0; topics],
            text: Vec::new(),
            request: Vec::new(),
        })
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
        socket::write_all(&self.socket, &self.request)?;
        self.is_busy = true;
        Ok(payload)
    }

    /// Takes what was read. Ready for the next message when the answer is there.
    pub fn feed(&mut self, input: &[u8]) -> Result<()> {
        if input.is_empty() {
            return Err("the server closed a publisher's connection".into());
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

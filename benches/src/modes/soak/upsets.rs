//! What happens to readers: they stall, are cut, and recover in the end.

use std::time::Duration;

use rustix::{
    event::epoll::EventFlags,
    net::{Shutdown, shutdown, sockopt},
};

use super::{
    random::Random,
    readers::{Act, Readers},
};
use crate::{Result, clock::now_ns, socket::Poll};

const S: f64 = 1e9;

impl Readers {
    pub(super) fn read_on(&mut self, number: usize, poll: &Poll) -> Result<()> {
        let reader = &mut self.all[number];
        let Some(socket) = reader.socket.as_ref().filter(|_| reader.is_stalled) else {
            return Ok(());
        };
        reader.is_stalled = false;
        poll.add(socket, number as u64, EventFlags::IN)
    }

    /// All stalled readers read on, and those that are away come back.
    pub fn recover(&mut self, poll: &Poll) -> Result<()> {
        for number in 0..self.all.len() {
            self.read_on(number, poll)?;
            let reader = &self.all[number];
            if reader.socket.is_none() {
                self.plan(number, now_ns() + reader.retry_ms * 1_000_000, Act::Open);
            }
        }
        Ok(())
    }

    /// A reader takes nothing for a time, shorter or longer than the server's patience.
    pub fn write_timeout(&mut self, random: &mut Random, stall_s: f64, poll: &Poll) -> Result<()> {
        let number = random.below(self.all.len());
        let long = random.below(2) == 1;
        let times = if long { random.between(1.2, 3.0) } else { random.between(0.05, 0.8) };
        let reader = &mut self.all[number];
        let Some(socket) = reader.socket.as_ref().filter(|_| !reader.is_stalled) else {
            return Ok(());
        };
        poll.remove(socket)?;
        (reader.is_stalled, reader.was_stalled) = (true, true);
        self.stalls += 1;
        self.plan(number, now_ns() + (stall_s * times * S) as u64, Act::ReadOn);
        Ok(())
    }

    /// A reader's connection ends, in one of three ways.
    pub fn cut(&mut self, random: &mut Random) -> Result<()> {
        let number = random.below(self.all.len());
        // Mostly soon, at times after minutes.
        let mean_s = if random.below(4) == 0 { 60.0 } else { 3.0 };
        let away_ns = (random.around(mean_s) * S) as u64;
        let way = random.below(3);
        let Some(socket) = &self.all[number].socket else { return Ok(()) };
        match way {
            0 => self.lose(number, "closed", away_ns),
            1 => {
                sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
                self.lose(number, "reset", away_ns);
            }
            _ if self.all[number].is_half_closed => {}
            _ => {
                // The server may have reset it already.
                let _ = shutdown(socket, Shutdown::Write);
                self.all[number].is_half_closed = true;
                let at_ns = now_ns() + (random.between(0.5, 10.0) * S) as u64;
                self.plan(number, at_ns, Act::Close);
            }
        }
        Ok(())
    }

    /// For good.
    pub fn close(&mut self) {
        self.plan.clear();
        self.all.iter_mut().for_each(|reader| reader.socket = None);
    }
}

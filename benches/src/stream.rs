//! One reader: a socket and where in its response it is. Small, as there are thousands.

use std::os::fd::OwnedFd;

use crate::{
    Result,
    http::Response,
    sse::{Blocks, Seen},
};

/// A stream that is or was open.
#[derive(Debug, Default)]
pub struct Stream {
    /// None once it is closed.
    pub socket: Option<OwnedFd>,
    pub response: Response,
    pub blocks: Blocks,
    /// How many blocks it got, comments too.
    pub blocks_seen: u64,
}

impl Stream {
    /// Takes what was read, and gives out the blocks in it.
    pub fn feed(&mut self, input: &[u8], size: usize, mut seen: impl FnMut(Seen)) -> Result<()> {
        let (blocks, count) = (&mut self.blocks, &mut self.blocks_seen);
        self.response.feed(input, &mut |body| {
            blocks.feed(body, size, &mut |block| {
                *count += 1;
                seen(block);
            });
        })?;
        if self.response.is_open() && self.response.status != 200 {
            return Err(format!("answered {}", self.response.status).into());
        }
        Ok(())
    }
}

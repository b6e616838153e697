//! Tickets in Redis: what each stands for, until it is used or too old.

use std::sync::Arc;

use redis::{RedisResult, cmd};

use crate::backplane::redis::link::{Dialer, Link};
use crate::backplane::{TICKET_MAX, TICKETS_PER_HOLDER_MAX};

impl Dialer {
    /// What the keys of all tickets begin with.
    fn tickets(&self) -> String {
        self.key("ticket:")
    }
}

impl Link {
    /// Keeps what a ticket stands for. Returns whether its holder may have one more.
    pub async fn keep(&mut self, name: &str, holder: &str, meaning: &str) -> RedisResult<bool> {
        let dialer = Arc::clone(&self.dialer);
        let tickets = dialer.tickets();
        let ticket = format!("{tickets}{name}");
        let of_holder = dialer.key(&format!("tickets-of:{holder}"));
        let refused = dialer.key(&format!("tickets-refused:{holder}"));
        let kept: u64 = self
            .call(&dialer.scripts.keep, &[&ticket, &of_holder, &refused], |command, _| {
                command.arg(meaning).arg(TICKET_MAX.as_millis().to_string());
                command.arg(TICKETS_PER_HOLDER_MAX).arg(name).arg(&tickets);
            })
            .await?;
        Ok(kept == 1)
    }

    /// What a ticket stands for, once.
    pub async fn take(&mut self, name: &str) -> RedisResult<Option<String>> {
        let ticket = format!("{}{name}", self.dialer.tickets());
        cmd("GETDEL").arg(ticket).query_async(&mut self.connection).await
    }
}

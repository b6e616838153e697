//! Tickets in Redis: names that stand for a grant until they are used or expire.

use std::sync::Arc;

use redis::{RedisResult, cmd};

use crate::backplane::{
    redis::link::Link,
    tickets::{TICKET_MAX, TICKETS_PER_HOLDER_MAX},
};

impl Link {
    /// Stores the grant of a ticket for [`TICKET_MAX`]. Returns false if its holder has
    /// [`TICKETS_PER_HOLDER_MAX`] unused tickets.
    ///
    /// # Errors
    /// Fails when Redis does not confirm.
    pub(crate) async fn keep_ticket(
        &mut self,
        name: &str,
        holder: &str,
        grant: &str,
    ) -> RedisResult<bool> {
        let context = Arc::clone(&self.context);
        let ticket = context.keys.ticket(name);
        let of_holder = context.keys.tickets_of_holder(holder);
        let refused = context.keys.holder_refused(holder);
        let kept: u64 = self
            .call(&context.scripts.keep, &[&ticket, &of_holder, &refused], |command, _| {
                command.arg(grant).arg(TICKET_MAX.as_millis().to_string());
                command.arg(TICKETS_PER_HOLDER_MAX).arg(name).arg(context.keys.ticket(""));
            })
            .await?;
        Ok(kept == 1)
    }

    /// Removes a ticket and returns its grant. `None` if it is unknown, used or expired.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub(crate) async fn take_ticket(&mut self, ticket: &str) -> RedisResult<Option<String>> {
        let key = self.context.keys.ticket(ticket);
        cmd("GETDEL").arg(key).query_async(&mut self.connection).await
    }
}

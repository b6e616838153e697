//! Presence in Redis: a hash for each topic with the reports of all replicas, and a sorted set of
//! the replicas by the time of their last call.

use std::sync::Arc;

use redis::RedisResult;

use crate::backplane::{
    presence::{PresenceAnswer, PresenceQuestion, PresenceWrite, REPLICA_EXPIRY, StoredReport},
    redis::link::Link,
};

/// Bytes of reports after which an answer has only versions. The last report can exceed it.
const ANSWER_BYTES: usize = 1024 * 1024;

impl Link {
    /// Writes the report of the replica `name` for one topic, and reads the others. Without a name,
    /// only reads.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub(crate) async fn ask_presence(
        &mut self,
        name: &str,
        question: &PresenceQuestion,
    ) -> RedisResult<PresenceAnswer> {
        let context = Arc::clone(&self.context);
        let (replicas, reports) =
            (&context.keys.replicas, context.keys.presence(question.topic.as_str()));
        let keys = [replicas.as_str(), &reports];
        let (stored, others): (String, Vec<(String, String, String)>) = self
            .call(&context.scripts.presence, &keys, |command, _| {
                command.arg(name).arg(REPLICA_EXPIRY.as_millis().to_string()).arg(ANSWER_BYTES);
                match &question.write {
                    PresenceWrite::Keep => command.arg("keep").arg("").arg(""),
                    PresenceWrite::Store(version, report) => {
                        command.arg("store").arg(*version).arg(report)
                    }
                    PresenceWrite::Remove => command.arg("remove").arg("").arg(""),
                };
                for (replica, version) in &question.known {
                    command.arg(replica).arg(*version);
                }
            })
            .await?;
        let others = others.into_iter().filter_map(|(replica, version, report)| {
            let report = (!report.is_empty()).then_some(report);
            Some(StoredReport { replica, version: version.parse().ok()?, report })
        });
        Ok(PresenceAnswer { stored: stored.parse().ok(), others: others.collect() })
    }

    /// Removes a replica, so that its reports no longer count.
    ///
    /// # Errors
    /// Fails when Redis does not confirm.
    pub(crate) async fn leave_presence(&mut self, name: &str) -> RedisResult<()> {
        let mut command = redis::cmd("ZREM");
        command.arg(&self.context.keys.replicas).arg(name);
        command.query_async(&mut self.connection).await
    }
}

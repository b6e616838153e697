//! Parser of the flags of streaming pull.

use crate::config::{PullConfig, PullSubscription, parse::Values};

impl Values<'_> {
    /// Reads `--pull` and the flags that begin with it.
    pub(in crate::config) fn pull(&mut self) -> PullConfig {
        const FLAG: &str = "pull";
        let subscriptions: Vec<PullSubscription> = self.many(FLAG);
        if !subscriptions.is_empty() && !cfg!(feature = "pull") {
            self.problem(
                FLAG,
                "this build cannot pull. Use the image, or build with: cargo build --features pull",
            );
        }
        for (at, subscription) in subscriptions.iter().enumerate() {
            if subscriptions.iter().take(at).any(|other| other.name == subscription.name) {
                self.problem(FLAG, format!("{} is given twice", subscription.name));
            }
        }
        let messages = self.small_count("pull-messages");
        PullConfig { subscriptions, endpoint: self.pull_endpoint(), messages }
    }

    /// Reads `--pull-endpoint`.
    fn pull_endpoint(&mut self) -> String {
        const FLAG: &str = "pull-endpoint";
        let text = self.text(FLAG).unwrap_or_default();
        let is_origin = |url: &reqwest::Url| {
            let is_http = ["http", "https"].contains(&url.scheme()) && url.has_host();
            is_http && url.path() == "/" && url.query().is_none() && url.username().is_empty()
        };
        if !reqwest::Url::parse(text).as_ref().is_ok_and(is_origin) {
            self.problem(
                FLAG,
                format!("{text:?} is not a URL such as https://private.googleapis.com"),
            );
        }
        text.to_owned()
    }
}

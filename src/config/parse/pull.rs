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

#[cfg(test)]
mod tests {
    use crate::config::{Config, Mode, Texts};

    const ORDERS: &str = "projects/p/subscriptions/orders";

    fn read(given: &[(&'static str, &str)]) -> Result<Config, Vec<String>> {
        let mut texts = Texts::new();
        for (flag, text) in given {
            texts.entry(flag).or_default().push((*text).to_owned());
        }
        Config::from_texts(Mode::Dev, &texts, None).map_err(|bad| bad.0)
    }

    #[cfg(not(feature = "pull"))]
    #[test]
    fn a_build_that_cannot_pull_says_how_to_get_one_that_can() {
        let problems = read(&[("pull", ORDERS)]).unwrap_err();
        assert!(problems[0].contains("cargo build --features pull"), "{problems:?}");
    }

    #[cfg(feature = "pull")]
    #[test]
    fn a_topic_is_pulled_by_several_subscriptions_and_each_once() {
        let other = "projects/p/subscriptions/other=orders";
        let pull = read(&[("pull", ORDERS), ("pull", other), ("topic", "orders")]).unwrap().pull;
        let topics: Vec<_> = pull.subscriptions.iter().map(|pull| pull.topic.as_str()).collect();
        assert_eq!((topics, pull.messages), (vec!["orders", "orders"], 1_000));
        let twice = "projects/p/subscriptions/orders=other";
        let problems = read(&[("pull", ORDERS), ("pull", twice)]).unwrap_err();
        assert!(problems[0].contains("given twice"), "{problems:?}");
        let problems = read(&[("pull", ORDERS), ("topic", "other")]).unwrap_err();
        assert!(problems[0].contains("not one of --topic"), "{problems:?}");
    }

    #[test]
    fn an_endpoint_is_a_url_without_a_path() {
        for good in ["https://private.googleapis.com", "http://[::1]:8085", "http://localhost:1/"] {
            assert_eq!(read(&[("pull-endpoint", good)]).unwrap().pull.endpoint, good);
        }
        for bad in ["localhost:8085", "https://a/v1", "ftp://a", "https://u@a", "https://a?b"] {
            let problems = read(&[("pull-endpoint", bad)]).unwrap_err();
            assert!(problems[0].starts_with("--pull-endpoint: "), "{bad}: {problems:?}");
        }
    }
}

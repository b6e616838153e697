//! Rules between flags.

use std::net::IpAddr;

use crate::{
    config::{BackplaneConfig, Config},
    model::topic::Topic,
};

impl Config {
    /// Returns an error for each rule between flags that does not hold. Call it only if every text
    /// could be read: a default replaces a text that could not be read, and an error that follows
    /// from the default would be misleading.
    pub(super) fn broken_rules(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        check(
            self.dedup_age >= self.ring_age,
            "--dedup-age must be at least --ring-age, or a message that Pub/Sub sends again would be \
             shown twice",
        );
        if let BackplaneConfig::Redis(redis) = &self.backplane {
            check(
                self.dedup_age >= redis.log_age,
                "--dedup-age must be at least --log-age, or a message that Pub/Sub sends again would \
                 be shown twice",
            );
        }
        check(
            self.ring_bytes <= self.ring_bytes_total,
            "--ring-bytes-total must be at least --ring-bytes",
        );
        let not_served = self.pull.subscriptions.iter().filter(|pull| !self.serves(&pull.topic));
        problems.extend(not_served.map(|pull| {
            format!("--pull: the topic {} of {} is not one of --topic", pull.topic, pull.name)
        }));
        problems.extend(self.shared_port());
        problems
    }

    /// Returns true if a topic is served.
    fn serves(&self, topic: &Topic) -> bool {
        self.topics.is_empty() || self.topics.contains(topic)
    }

    /// Returns an error if both listeners would have the same port of the same address.
    fn shared_port(&self) -> Option<String> {
        let (listen, ops) = (self.listen, self.ops_listen?);
        let is_covered = covers(listen.ip(), ops.ip()) || covers(ops.ip(), listen.ip());
        let is_shared = listen.port() == ops.port() && is_covered;
        (is_shared && listen.port() != 0).then(|| {
            format!("--ops-listen: {ops} has the port of --listen {listen}. Give another port")
        })
    }
}

/// Returns true if a listener on `all` also listens on `one`. An unspecified address is every
/// address of its family; that of IPv6 is also every address of IPv4, as Linux binds it.
fn covers(all: IpAddr, one: IpAddr) -> bool {
    all == one || all.is_unspecified() && (all.is_ipv6() || one.is_ipv4())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Mode, Texts};

    fn problems(given: &[(&'static str, &str)]) -> Vec<String> {
        let texts = given.iter().map(|(flag, text)| (*flag, vec![(*text).to_owned()]));
        Config::read(Mode::Dev, &texts.collect::<Texts>(), None).1
    }

    #[test]
    fn every_broken_rule_is_reported() {
        let given = [
            ("ring-age", "40 min"),
            ("dedup-age", "30 min"),
            ("ring-bytes", "256 MiB"),
            ("ring-bytes-total", "128 MiB"),
            ("ops-listen", "127.0.0.1:8080"),
        ];
        let problems = problems(&given);
        assert_eq!(problems.len(), 3, "{problems:?}");
        for (problem, flag) in problems.iter().zip(["dedup-age", "ring-bytes-total", "ops-listen"])
        {
            assert!(problem.starts_with(&format!("--{flag}")), "{problems:?}");
        }
    }

    #[test]
    fn both_listeners_may_leave_their_ports_to_the_system_and_share_a_port_of_two_addresses() {
        assert!(problems(&[("listen", "127.0.0.1:0"), ("ops-listen", "127.0.0.1:0")]).is_empty());
        assert!(problems(&[("ops-listen", "127.0.0.2:8080")]).is_empty());
        for (listen, ops, count) in [
            ("127.0.0.1:8080", "0.0.0.0:8080", 1),
            ("127.0.0.1:8080", "[::]:8080", 1),
            ("[::1]:8080", "0.0.0.0:8080", 0),
            ("[::1]:8080", "[::]:8080", 1),
        ] {
            let given = [("listen", listen), ("ops-listen", ops)];
            assert_eq!(problems(&given).len(), count, "{given:?}");
        }
    }
}

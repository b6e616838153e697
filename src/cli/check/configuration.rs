//! Checks of a configuration: what would keep `serve` from starting here and now.

use crate::{
    auth::key_file,
    backplane::redis,
    cli::check::finding::{Finding, Report},
    config::{BackplaneConfig, Config, ReadKeys, RedisConfig},
    net::tls,
    server::Listeners,
};

/// Configuration of `serve`, and the errors in it. A flag that cannot be read has its default.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) config: Config,
    pub(super) problems: Vec<String>,
}

/// Flags and variables with an address. An error about an address begins with one of the names.
const ADDRESSES: [&str; 4] = ["--listen", "--ops-listen", "--port", "PORT"];

/// Checks the flags, and what they name. An error in one flag hides no error in another. Rules
/// between flags are checked only if every flag can be read.
pub(super) async fn check(checked: Configuration, report: &mut Report) {
    let Configuration { config, problems } = checked;
    if problems.is_empty() {
        report.add(Finding::good("flags", "every flag and variable can be read"));
    }
    let is_address = |problem: &String| ADDRESSES.iter().any(|flag| problem.starts_with(flag));
    let has_addresses = !problems.iter().any(is_address);
    for problem in problems {
        report.add(Finding::problem("flags", problem, &[]));
    }
    if let Some(files) = &config.tls {
        let fits = "--tls-cert and --tls-key can be read and belong together".to_owned();
        add("tls", tls::problems(files), fits, report);
    }
    if let Some(checks) = config.token_checks()
        && let ReadKeys::File(path) = &checks.keys
    {
        let problem = key_file::load_key(path).err();
        let problem = problem.map(|err| format!("--read-key-file: {err}"));
        add("read-key-file", problem, format!("{} holds a key", path.display()), report);
    }
    if let BackplaneConfig::Redis(options) = &config.backplane {
        report.add(redis_finding(options).await);
    }
    if has_addresses {
        let ops = config.ops_listen.map(|ops| format!(" and {ops} are")).unwrap_or_default();
        let is = if ops.is_empty() { " is" } else { "" };
        let free = format!("{}{ops}{is} free", config.listen);
        add("listen", Listeners::problems(&config), free, report);
    } else {
        let text = "one of the addresses is wrong (see the check flags), so none was tried";
        report.add(Finding::not_checked("listen", text));
    }
}

/// Adds a finding for each problem. Without a problem, adds one finding with the text `good`.
fn add<P: ToString>(
    check: &'static str,
    problems: impl IntoIterator<Item = P>,
    good: String,
    report: &mut Report,
) {
    let mut problems = problems.into_iter().peekable();
    if problems.peek().is_none() {
        report.add(Finding::good(check, good));
    }
    for problem in problems {
        report.add(Finding::problem(check, problem.to_string(), &[]));
    }
}

/// Connects to the Redis server, and checks that the server can hold the log.
async fn redis_finding(options: &RedisConfig) -> Finding {
    let server = format!("{}:{}", options.host, options.port);
    match redis::reach(options).await {
        Ok(()) => Finding::good("redis", format!("{server} answers, and can hold the log")),
        Err(err) => {
            let text = format!("--backplane: the Redis server {server} cannot be used: {err}");
            Finding::problem("redis", text, &[])
        }
    }
}

//! `token make`: signs a token.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{ArgMatches, Command, error::ErrorKind};
use jsonwebtoken::{Header, encode};
use serde_json::{Map, Value, json};

use crate::{
    auth::key_file::load_signing_key,
    cli::token::{key_file, many, option, topics_claim, values},
    clock,
    config::{TIME_FORM, parse_time},
    model::{filter::Filter, topic::TopicPattern},
};

/// Token to make.
#[derive(Debug)]
pub struct Make {
    /// File with the key that signs.
    key_file: PathBuf,
    /// Claims without `exp`.
    claims: Map<String, Value>,
    /// Life of the token.
    life: Duration,
}

/// Returns the subcommand and its arguments.
pub(super) fn command() -> Command {
    Command::new("make")
        .bin_name("stream-events token make")
        .about("Make a token, and print it")
        .after_help(
            "Example: openssl rand -base64 32 >secret; stream-events token make --read-key-file \
             secret --topic orders. A gateway with --read-auth jwt --read-key-file secret accepts \
             the token.",
        )
        .arg(key_file("File with the shared secret, or with the private key (PEM, PKCS #8)"))
        .arg(many("topic", "NAME", "Topic that the bearer may read: a name, prefix.* or *"))
        .arg(many("publish", "NAME", "Topic to which the bearer may publish: as for --topic"))
        .arg(option("filter", "FILTER", "Filter of the events that the bearer may read"))
        .arg(option("subject", "TEXT", "Subject: who the bearer is (sub)"))
        .arg(option("audience", "TEXT", "Audience: the gateway's --read-audience (aud)"))
        .arg(option("issuer", "TEXT", "Issuer: the gateway's --read-issuer (iss)"))
        .arg(option("expires", "TIME", "Life of the token").default_value("1 h"))
        .arg(topics_claim())
}

impl Make {
    /// Reads the arguments. Refuses topics and filters that a gateway would not understand.
    pub(super) fn read(given: &ArgMatches) -> Result<Self, clap::Error> {
        let bad = |problem: String| command().error(ErrorKind::ValueValidation, problem);
        let text = |name: &str| given.get_one::<String>(name).cloned();
        let (topics, publish) = (values(given, "topic"), values(given, "publish"));
        for (flag, patterns) in [("topic", &topics), ("publish", &publish)] {
            for pattern in patterns {
                let parsed = pattern.parse::<TopicPattern>();
                parsed.map_err(|err| bad(format!("--{flag}: {err}")))?;
            }
        }
        if topics.is_empty() && publish.is_empty() {
            return Err(bad(
                "a token without topics grants nothing: give --topic or --publish".into()
            ));
        }
        if let Some(filter) = text("filter") {
            Filter::parse(&filter).map_err(|err| bad(format!("--filter: {err}")))?;
        }
        let expires = text("expires").unwrap_or_default();
        let life = parse_time(&expires);
        let life =
            life.ok_or_else(|| bad(format!("--expires: {expires:?}: expected {TIME_FORM}")))?;
        let mut claims = Map::new();
        for (flag, claim) in
            [("subject", "sub"), ("audience", "aud"), ("issuer", "iss"), ("filter", "filter")]
        {
            claims.extend(text(flag).map(|text| (claim.to_owned(), json!(text))));
        }
        if !topics.is_empty() {
            nest(&mut claims, &text("read-topics-claim").unwrap_or_default(), json!(topics));
        }
        if !publish.is_empty() {
            claims.insert("publish".to_owned(), json!(publish));
        }
        let key_file = given.get_one::<PathBuf>("read-key-file").cloned().unwrap_or_default();
        Ok(Self { key_file, claims, life })
    }

    /// Prints the token.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of the command")]
    pub(super) fn run(&self) -> ExitCode {
        match self.sign() {
            Ok(token) => {
                println!("{token}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        }
    }

    /// Signs the token. Returns a text that says what is wrong.
    fn sign(&self) -> Result<String, String> {
        let (key, algorithm) = load_signing_key(&self.key_file).map_err(|err| err.to_string())?;
        let now = clock::now_ms() / 1_000;
        let mut claims = self.claims.clone();
        claims.insert("iat".to_owned(), json!(now));
        claims.insert("exp".to_owned(), json!(now.saturating_add(self.life.as_secs())));
        encode(&Header::new(algorithm), &claims, &key).map_err(|err| err.to_string())
    }
}

/// Inserts a value at a path of claims, with a dot between the names.
fn nest(claims: &mut Map<String, Value>, path: &str, value: Value) {
    let mut names = path.rsplit('.');
    let last = names.next().unwrap_or(path).to_owned();
    let nested = names.fold((last, value), |(name, value), outer| {
        (outer.to_owned(), Value::Object(Map::from_iter([(name, value)])))
    });
    claims.extend([nested]);
}

//! `token explain`: says what a token grants, or why a gateway refuses it.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Arg, ArgMatches, Command};

use crate::{
    auth::{
        AuthError,
        grant::Grant,
        key_file::load_key,
        reader::{ReaderVerifier, TokenKeys},
    },
    cli::{
        block_on,
        token::{key_file, many, topics_claim, values},
    },
    clock,
    model::topic::{Topic, TopicPattern},
};

/// Token to explain, and the checks of the gateway.
#[derive(Debug)]
pub struct Explain {
    token: String,
    key_file: PathBuf,
    audiences: Vec<String>,
    issuers: Vec<String>,
    topics_claim: String,
    /// Topics that the user asks about.
    topics: Vec<String>,
}

/// Returns the subcommand and its arguments.
pub(super) fn command() -> Command {
    Command::new("explain")
        .about("Say what a token grants, or why a gateway refuses it")
        .arg(Arg::new("token").value_name("TOKEN").required(true).help("Token"))
        .arg(key_file("Key of the gateway: the shared secret, or the public key (PEM)"))
        .arg(many(
            "topic",
            "NAME",
            "Topic to ask about: may the bearer read it, and publish to it?",
        ))
        .arg(many("read-audience", "TEXT", "Audience that the gateway asks for"))
        .arg(many("read-issuer", "TEXT", "Issuer that the gateway asks for"))
        .arg(topics_claim())
}

impl Explain {
    /// Reads the arguments.
    pub(super) fn read(given: &ArgMatches) -> Self {
        let text = |name: &str| given.get_one::<String>(name).cloned().unwrap_or_default();
        Self {
            token: text("token"),
            key_file: given.get_one::<PathBuf>("read-key-file").cloned().unwrap_or_default(),
            audiences: values(given, "read-audience"),
            issuers: values(given, "read-issuer"),
            topics_claim: text("read-topics-claim"),
            topics: values(given, "topic"),
        }
    }

    /// Prints what the token grants. Fails if a gateway would refuse it.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of the command")]
    pub(super) fn run(&self) -> ExitCode {
        match self.explain() {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        }
    }

    /// Verifies the token as a gateway does, for reading and for publishing.
    fn explain(&self) -> Result<String, String> {
        let key = load_key(&self.key_file).map_err(|err| err.to_string())?;
        let keys = TokenKeys::Single(key);
        let verifier =
            ReaderVerifier::new(keys, &self.audiences, &self.issuers, &self.topics_claim);
        let token = self.token.trim().as_bytes();
        let verify =
            async { (verifier.verify(token).await, verifier.verify_publisher(token).await) };
        let (read, publish) = block_on(verify).map_err(|err| err.to_string())?;
        let grant = match (&read, &publish) {
            (Ok(grant), _) | (_, Ok(grant)) => grant,
            (Err(err), Err(_)) => return Err(err.to_string()),
        };
        let mut text = String::new();
        writeln!(text, "subject: {}", grant.subject.as_deref().unwrap_or("none")).ok();
        let left = Duration::from_millis(grant.expires_ms.saturating_sub(clock::now_ms()));
        let left = jiff::SignedDuration::from_secs(left.as_secs().try_into().unwrap_or(i64::MAX));
        writeln!(text, "expires in: {left:#}").ok();
        let filter = grant.filter.as_ref().map_or("none", |filter| filter.as_str());
        writeln!(text, "filter: {filter}").ok();
        self.write_use(&mut text, "may read", &read, |grant| &grant.topics);
        self.write_use(&mut text, "may publish to", &publish, |grant| &grant.publish);
        Ok(text)
    }

    /// Writes the topics of one use of the token, and answers for the topics of `--topic`.
    fn write_use(
        &self,
        text: &mut String,
        verb: &str,
        result: &Result<Grant, AuthError>,
        patterns: impl Fn(&Grant) -> &[TopicPattern],
    ) {
        let patterns = match result {
            Ok(grant) => patterns(grant),
            Err(err) => {
                writeln!(text, "{verb}: nothing: {err}").ok();
                return;
            }
        };
        let names: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        writeln!(text, "{verb}: {}", names.join(", ")).ok();
        for name in &self.topics {
            let answer = match name.parse::<Topic>() {
                Ok(topic) if patterns.iter().any(|pattern| pattern.matches(&topic)) => "yes".into(),
                Ok(_) => "no: no name or pattern of the token matches".to_owned(),
                Err(err) => format!("no: {err}"),
            };
            writeln!(text, "  {name}: {answer}").ok();
        }
    }
}

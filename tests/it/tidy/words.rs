//! Words that no file uses any more, each with its replacement; and how doc comments begin.

use std::path::Path;

use super::{assert_none, shipped, sources, texts};

/// Files and folders whose words are checked.
const CHECKED: &[&str] = &[
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Dockerfile",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "deny.toml",
    "deploy",
    "docs",
    "examples",
    "fuzz/README.md",
    "fuzz/fuzz_targets",
    "fuzz/src",
    "k8s",
    "scripts",
    "src",
    "tests",
];

/// Files that may have the words: the list itself, and examples of what not to write.
const NAMES_THEM: &[&str] = &["tests/it/tidy/words.rs", "CONTRIBUTING.md"];

/// A word that is not used any more.
#[derive(Clone, Copy)]
struct Word {
    /// Pattern. With `_` or a capital: an identifier as it stands. With `--`: a flag, and its
    /// variable in the environment. Else a word in any case, also as a part of `snake_case` and `CamelCase`;
    /// several words are a phrase, and `*` at the end stands for any letters.
    old: &'static str,
    /// The words that say it instead.
    say: &'static str,
    /// Files and folders that still have it.
    except: &'static [&'static str],
}

const fn word(old: &'static str, say: &'static str) -> Word {
    Word { old, say, except: &[] }
}

const fn still_in(except: &'static [&'static str], word: Word) -> Word {
    Word { except, ..word }
}

const WORDS: &[Word] = &[
    still_in(
        &["benches/src/floor/mod.rs", "src/", "tests/it/hub/patterns.rs"],
        word("rung", "`notified`, or name who wakes whom"),
    ),
    word("rungs", "`notified`, or name who wakes whom"),
    still_in(
        &["src/hub/fanout/notifier.rs", "src/hub/fanout/subscriber.rs", "tests/it/hub/threads.rs"],
        word("bell", "`Notifier`"),
    ),
    word("bells", "`Notifier`"),
    word("ring_again", "`reschedule`"),
    word("cohort*", "`Broadcast`"),
    word("hatch*", "`Takeover`"),
    still_in(
        &["src/net/http1/mod.rs", "tests/it/stream/reactor.rs"],
        word("crowd*", "`ConnectionLimiter`, or \"many connections\""),
    ),
    still_in(&["tests/it/server/cors.rs"], word("heed*", "\"obey\" or \"check\"")),
    word("knob*", "`Flag`, \"setting\""),
    still_in(
        &["benches/tests/load.rs", "tests/it/stream/reactor.rs"],
        word("lean", "`Reactor`, `direct`, \"without a task\""),
    ),
    word("sends_away", "`is_idle_expired`"),
    still_in(
        &["benches/", "k8s/README.md", "tests/"],
        word("patience", "`idle_timeout`, \"limit\""),
    ),
    still_in(
        &[
            "SECURITY.md",
            "docs/deploy/cloud-run.md",
            "deploy/nginx/README.md",
            "examples/browser.html",
            "examples/node.mjs",
            "examples/python.py",
            "fuzz/src/targets/envelope.rs",
            "scripts/dockerfile.py",
            "src/",
            "tests/",
        ],
        word("whoever", "the noun: \"a client that\", \"a handler that\""),
    ),
    still_in(
        &[
            "README.md",
            "benches/",
            "docs/deploy/cloud-run.md",
            "deploy/cloud-run/push.yaml",
            "deploy/local/run",
            "fuzz/src/targets/read_token.rs",
            "k8s/",
            "src/",
            "tests/",
        ],
        word("nobody", "the noun: \"no reader\", \"no client\""),
    ),
    still_in(
        &["Cargo.toml", "src/", "tests/it/stream/broadcast.rs"],
        word("those who", "the noun: \"readers that\""),
    ),
    still_in(
        &[
            "README.md",
            "benches/",
            "examples/python.py",
            "examples/subscribe.rs",
            "fuzz/src/targets/push_token.rs",
            "src/",
            "tests/",
        ],
        word("so many", "the number and its name: \"at most `max` streams\""),
    ),
    still_in(
        &[
            "README.md",
            "benches/",
            "deploy/RUNBOOK.md",
            "deploy/nginx/README.md",
            "deploy/terraform/README.md",
            "scripts/check-image-run",
            "src/",
            "tests/artefacts/rules_leaving.py",
            "tests/it/backplane/chaos.rs",
            "tests/it/backplane/log_changes.rs",
        ],
        word("so long", "the time and its name: \"for `idle_timeout`\""),
    ),
    word("one_more", "`try_acquire`"),
    word("are_all", "`is_all`"),
    word("are_within", "`is_within`"),
    word("id_due", "`checkpoint_due`"),
    word("gap_told", "`gap_sent`"),
    still_in(&["benches/tests/load.rs", "tests/it/net/http2.rs"], word("untold", "`pending_gap`")),
    word("not_yours", "`TopicDenied`"),
    word("Unfetched", "`FetchError`"),
    word("Unreceived", "`ReceiveError`"),
    word("Denied", "`AuthError`"),
    word("--stall", "--write-timeout"),
    word("--join-max", "--coalesce-max"),
    word("--hello-time", "--handshake-timeout"),
    word("--head-time", "--header-timeout"),
    word("--body-time", "--body-timeout"),
    word("--drain", "--drain-timeout"),
    word("--connections-beside-streams", "--idle-connections-max"),
    word("--lean-streams", "nothing: the flag is gone"),
    word("--direct-streams", "nothing: the flag is gone"),
];

/// Returns the words of a line, in small letters: identifiers are taken apart.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        let begins = !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase());
        if begins && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_identifier(old: &str) -> bool {
    old.contains('_') || old.contains(char::is_uppercase)
}

/// Returns true if `text` has `old` with none of `inside` on either side.
fn has_whole(text: &str, old: &str, inside: fn(char) -> bool) -> bool {
    text.match_indices(old).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + old.len()..].chars().next();
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}

/// Returns true if the words `line`, which `next` follows, contain the phrase and begin it on this line.
fn has_phrase(line: &[String], next: &[String], phrase: &[&str]) -> bool {
    let all: Vec<_> = line.iter().chain(next).collect();
    let is = |word: &str, old: &str| match old.strip_suffix('*') {
        Some(start) => word.starts_with(start),
        None => word == old,
    };
    let fits = |window: &[&String]| window.iter().zip(phrase).all(|(word, old)| is(word, old));
    all.windows(phrase.len()).take(line.len()).any(fits)
}

/// Returns the numbers of the lines that have the word.
fn lines_with(text: &str, old: &str) -> Vec<usize> {
    let numbered = text.lines().enumerate();
    if let Some(flag) = old.strip_prefix("--") {
        let variable = format!("STREAM_EVENTS_{}", flag.replace('-', "_").to_uppercase());
        let is_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let has = |line: &str| has_whole(line, old, is_name) || has_whole(line, &variable, is_name);
        return numbered.filter(|(_, line)| has(line)).map(|(at, _)| at + 1).collect();
    }
    if is_identifier(old) {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let has = |line: &str| has_whole(line, old, is_name);
        return numbered.filter(|(_, line)| has(line)).map(|(at, _)| at + 1).collect();
    }
    let phrase: Vec<_> = old.split(' ').collect();
    let lines: Vec<_> = text.lines().map(split).collect();
    let next = |at: usize| lines.get(at + 1).map_or(&[][..], Vec::as_slice);
    (0..lines.len())
        .filter(|at| has_phrase(&lines[*at], next(*at), &phrase))
        .map(|at| at + 1)
        .collect()
}

#[test]
fn words_are_found() {
    let text = "let x = LEAN_STREAMS; // Those of so\n// many knobs, clean: `leanOr`\nTopicDenied --stall=1";
    assert_eq!(lines_with(text, "lean"), [1, 2]);
    assert_eq!(lines_with(text, "so many"), [1]);
    assert_eq!(lines_with(text, "knob*"), [2]);
    assert_eq!(lines_with(text, "Denied"), [0_usize; 0]);
    assert_eq!(lines_with(text, "--stall"), [3]);
    assert_eq!(lines_with("--stalled, STREAM_EVENTS_STALL: 1", "--stall"), [1]);
}

#[test]
fn old_words_are_gone() {
    let is_text = |path: &Path| path.extension().is_none_or(|extension| extension != "svg");
    let mut problems = Vec::new();
    for (file, text) in CHECKED.iter().flat_map(|path| texts(path, &is_text)) {
        if NAMES_THEM.contains(&file.as_str()) {
            continue;
        }
        for word in WORDS {
            if word.except.iter().any(|path| file.starts_with(path)) {
                continue;
            }
            for line in lines_with(&text, word.old) {
                problems.push(format!("{file}:{line}: `{}`: say {}", word.old, word.say));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn every_error_type_ends_in_error() {
    let mut problems = Vec::new();
    for (file, text) in sources("src") {
        for (at, _) in shipped(&text).match_indices("Error)]\n") {
            let code = shipped(&text);
            let Some(item) = code[at..].lines().skip(1).find(|line| !line.starts_with('#')) else {
                continue;
            };
            let words = item.split(|c: char| !c.is_alphanumeric() && c != '_');
            let name = words.skip_while(|word| !["enum", "struct"].contains(word)).nth(1);
            if let Some(name) = name.filter(|name| !name.ends_with("Error")) {
                problems.push(format!("{file}: {name} is an error type: end its name in `Error`"));
            }
        }
    }
    assert_none(&problems);
}

/// Folders whose doc comments are checked.
const DOC_COMMENTS_OF: &[&str] = &["tests/it/docs", "tests/it/tidy"];

/// Words that begin no doc comment: it begins with a noun or a verb.
const NEVER_FIRST: &[&str] = &[
    "after", "all", "and", "as", "at", "before", "between", "but", "by", "each", "for", "from",
    "how", "if", "in", "it", "its", "like", "not", "of", "on", "one", "since", "so", "such",
    "than", "that", "their", "them", "then", "there", "these", "they", "this", "those", "to",
    "until", "what", "when", "where", "whether", "which", "while", "who", "whoever", "whom",
    "whose", "why", "with", "without",
];

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let mut problems = Vec::new();
    for (file, text) in DOC_COMMENTS_OF.iter().flat_map(|folder| sources(folder)) {
        let mut in_comment = false;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let comment = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "));
            if let (false, Some(comment)) = (in_comment, comment) {
                let first = comment.split(|c: char| !c.is_alphanumeric()).next().unwrap();
                if NEVER_FIRST.contains(&first.to_lowercase().as_str()) {
                    problems.push(format!("{file}:{}: begins with `{first}`", at + 1));
                }
            }
            in_comment = line.starts_with("///") || line.starts_with("//!");
        }
    }
    assert_none(&problems);
}

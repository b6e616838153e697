//! The rules of the tree: who may import whom, and how large things may get.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Who may name whom of this crate: the data's way, and never back. What stands beside it (`clock`,
/// `config`, `connection`, `metrics`, `problem`) knows no one but plain types.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("address", &[]),
    ("budget", &[]),
    ("burst", &[]),
    ("counts", &[]),
    ("clock", &[]),
    ("message", &[]),
    ("event", &["message"]),
    ("config", &["message"]),
    ("metrics", &[]),
    ("problem", &[]),
    ("rate", &[]),
    ("keys", &["problem"]),
    ("connection", &["connection", "budget"]),
    ("watch", &["connection"]),
    ("logs", &["clock", "config"]),
    ("proxy_protocol", &["burst"]),
    ("accept", &["config", "connection", "proxy_protocol"]),
    ("guard", &["config", "problem"]),
    ("front", &["config", "connection", "guard", "inlet", "problem"]),
    ("http1", &["http1", "connection", "counts", "outlet", "problem"]),
    ("http2", &["http2", "clock", "connection", "hub"]),
    ("hub", &["hub", "budget", "event", "message"]),
    (
        "backplane",
        &["backplane", "hub", "event", "message", "burst", "clock", "config", "counts", "metrics"],
    ),
    (
        "inlet",
        &[
            "inlet",
            "backplane",
            "hub",
            "message",
            "address",
            "budget",
            "burst",
            "clock",
            "config",
            "keys",
            "metrics",
            "problem",
            "rate",
        ],
    ),
    (
        "outlet",
        &[
            "outlet",
            "backplane",
            "hub",
            "event",
            "message",
            "address",
            "budget",
            "clock",
            "connection",
            "counts",
            "guard",
            "keys",
            "metrics",
            "problem",
            "rate",
            "watch",
        ],
    ),
    ("heartbeat", &[]),
    ("ops", &["backplane", "heartbeat", "hub", "inlet", "outlet"]),
];

/// These drive everything and may know everyone.
const MAY_IMPORT_ALL: &[&str] = &["server", "cli", "main", "lib"];

/// The hub knows no protocol. (Of tokio it has the bell that wakes a worker.)
const HUB_NEVER_NAMES: &[&str] = &[
    "actix",
    "serde",
    "json",
    "jsonwebtoken",
    "redis",
    "reqwest",
    "http",
    "prometheus",
    "clock::",
];
/// These are pure: no clock, lock, I/O or waiting.
const PURE: &[&str] =
    &["event.rs", "hub/ring.rs", "hub/rings.rs", "hub/read.rs", "hub/timeline.rs", "hub/dedup.rs"];
const PURE_NEVER_NAMES: &[&str] = &[
    "std::time",
    "std::io",
    "std::net",
    "std::fs",
    "Mutex",
    "RwLock",
    "tokio",
    "async ",
    ".await",
];

const FILE_LINES_MAX: usize = 400;
const LINE_CHARS_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        // What cargo builds in a folder of its own is nobody's text.
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every file below a folder: its path from there, and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let base = root().join(folder);
    let mut paths = Vec::new();
    rust_files(&base, &mut paths);
    let name = |path: &PathBuf| path.strip_prefix(&base).unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The part of a file that ships: without its tests, and without comments.
fn shipped(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first segments of all `crate::` paths, also inside of braces.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(
                rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned(),
            );
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => item.clear(),
                _ => {}
            }
            if depth == 0 && (c.is_alphanumeric() || c == '_') {
                item.push(c);
            } else if c == ':' && !item.is_empty() {
                found.insert(std::mem::take(&mut item));
                // What follows up to the next comma at this depth belongs to it.
                item.push(' ');
            }
        }
    }
    found.into_iter().filter(|name| !name.starts_with(' ')).collect()
}

#[test]
fn the_import_reader_reads_imports() {
    let code = "use crate::{\n    clock,\n    hub::{Hub, read::Gap},\n    message::Topic,\n};\nfn f() { crate::event::x() }";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["event", "hub", "message"]);
}

#[test]
fn modules_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let module = file.trim_end_matches(".rs").split('/').next().unwrap();
        if MAY_IMPORT_ALL.contains(&module) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{file}: {module} is not in the table of imports"));
            continue;
        };
        for name in imports(&shipped(&text)) {
            if name != module && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{file}: {module} must not import {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_hub_knows_no_protocol_and_the_rings_no_time() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let code = shipped(&text);
        let named = |never: &[&'static str]| -> Vec<&'static str> {
            never.iter().filter(|name| code.contains(*name)).copied().collect()
        };
        if file.starts_with("hub/") {
            wrong.extend(named(HUB_NEVER_NAMES).iter().map(|name| format!("{file}: {name}")));
        }
        if PURE.contains(&file.as_str()) {
            wrong.extend(named(PURE_NEVER_NAMES).iter().map(|name| format!("{file}: {name}")));
        }
        if file != "clock.rs" && code.contains("SystemTime") {
            wrong.push(format!("{file}: the wall clock is read in clock.rs"));
        }
        if file != "cli/mod.rs" && code.contains("env::var") {
            wrong.push(format!("{file}: the environment is read in cli/mod.rs"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let files: Vec<_> = sources("src").into_iter().map(|(file, _)| file).collect();
    assert!(PURE.iter().all(|pure| files.iter().any(|file| file == pure)), "a pure file is gone");
}

/// Functions are limited to 70 lines by clippy (`clippy.toml`).
#[test]
fn files_are_small_and_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "examples", "benches", "fuzz"] {
        for (file, text) in sources(folder) {
            if !text.starts_with("//! ") {
                wrong.push(format!(
                    "{folder}/{file}: does not begin with a sentence on what it is for"
                ));
            }
            let lines = text.lines().count();
            if FILE_LINES_MAX < lines {
                wrong.push(format!("{folder}/{file}: {lines} lines"));
            }
            for (at, line) in text.lines().enumerate() {
                // A text that cannot be broken is not broken.
                let long = LINE_CHARS_MAX < line.chars().count()
                    && !line.contains('"')
                    && !line.contains("https://");
                if long && ["src", "benches", "fuzz"].contains(&folder) {
                    wrong.push(format!(
                        "{folder}/{file}:{}: over {LINE_CHARS_MAX} characters",
                        at + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

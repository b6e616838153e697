//! The seeds of the fuzz targets, without a fuzzer: `fuzz/README.md` says how to run that. What a
//! target says of a seed is what its file's name begins with.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::{jwks, parser};

#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

/// What a fuzzer has found is named by its hash, and comes and goes while one runs.
fn is_found(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn seeds_become(target: &str, run: fn(&[u8]) -> &'static str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(folder).unwrap().flatten();
    let mut seen = 0;
    for file in files {
        let name = file.file_name().into_string().unwrap();
        if is_found(&name) {
            continue;
        }
        eprintln!("{target}/{name}");
        let became = run(&fs::read(file.path()).unwrap());
        assert!(name.starts_with(became), "{target}/{name} is {became}");
        seen += 1;
    }
    assert!(10 < seen, "{target}: {seen} seeds");
}

#[test]
fn names() {
    seeds_become("names", targets::names::run);
}

#[test]
fn envelope() {
    seeds_become("envelope", targets::envelope::run);
}

#[test]
fn frame() {
    seeds_become("frame", targets::frame::run);
}

#[test]
fn query() {
    seeds_become("query", targets::query::run);
}

#[test]
fn push_token() {
    seeds_become("push_token", targets::push_token::run);
}

#[test]
fn read_token() {
    seeds_become("read_token", targets::read_token::run);
}

/// Names and versions in a lock file.
fn locked(text: &str) -> BTreeSet<(&str, &str)> {
    let packages = text.split("[[package]]").skip(1);
    packages
        .map(|package| {
            let field = |name| package.split_once(name).unwrap().1.split('"').next().unwrap();
            (field("name = \""), field("version = \""))
        })
        .collect()
}

/// Else what is fuzzed would not be what ships.
#[test]
fn the_fuzzed_dependencies_are_those_of_the_gateway() {
    let ours = locked(include_str!("../../Cargo.lock"));
    let fuzzed = locked(include_str!("../../fuzz/Cargo.lock"));
    let only_there: Vec<_> = fuzzed.difference(&ours).map(|(name, _)| *name).collect();
    assert_eq!(
        only_there,
        ["arbitrary", "libfuzzer-sys", "stream-events-fuzz"],
        "cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null"
    );
}

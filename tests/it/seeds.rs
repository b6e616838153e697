//! Runs the fuzz targets on their seeds, without a fuzzer (see `fuzz/README.md` for that). The name
//! of a seed's file begins with the result that the target must return.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::{jwks, parser};

#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

/// Returns true for an input that a fuzzer has found: its name is a hash. Such files appear and
/// disappear while a fuzzer runs.
fn is_found_by_fuzzer(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Runs a target on each of its seeds and compares the results with the file names.
fn run_seeds(target: &str, run: fn(&[u8]) -> &'static str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(folder).unwrap().flatten();
    let mut seen = 0;
    for file in files {
        let name = file.file_name().into_string().unwrap();
        if is_found_by_fuzzer(&name) {
            continue;
        }
        eprintln!("{target}/{name}");
        let result = run(&fs::read(file.path()).unwrap());
        assert!(name.starts_with(result), "{target}/{name}: the result is {result}");
        seen += 1;
    }
    assert!(10 < seen, "{target}: {seen} seeds");
}

#[test]
fn names() {
    run_seeds("names", targets::names::run);
}

#[test]
fn envelope() {
    run_seeds("envelope", targets::envelope::run);
}

#[test]
fn filter() {
    run_seeds("filter", targets::filter::run);
}

#[test]
fn frame() {
    run_seeds("frame", targets::frame::run);
}

#[test]
fn query() {
    run_seeds("query", targets::query::run);
}

#[test]
fn publish() {
    run_seeds("publish", targets::publish::run);
}

#[test]
fn push_token() {
    run_seeds("push_token", targets::push_token::run);
}

#[test]
fn read_token() {
    run_seeds("read_token", targets::read_token::run);
}

/// Returns the names and versions of the packages in a lock file.
fn locked(text: &str) -> BTreeSet<(&str, &str)> {
    let packages = text.split("[[package]]").skip(1);
    packages
        .map(|package| {
            let field = |name| package.split_once(name).unwrap().1.split('"').next().unwrap();
            (field("name = \""), field("version = \""))
        })
        .collect()
}

/// The fuzz targets must be built with the dependencies that ship.
#[test]
fn fuzz_targets_have_the_dependencies_of_the_gateway() {
    let ours = locked(include_str!("../../Cargo.lock"));
    let fuzzed = locked(include_str!("../../fuzz/Cargo.lock"));
    let only_there: Vec<_> = fuzzed.difference(&ours).map(|(name, _)| *name).collect();
    assert_eq!(
        only_there,
        ["arbitrary", "libfuzzer-sys", "stream-events-fuzz"],
        "cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null"
    );
}

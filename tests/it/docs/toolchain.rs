//! Version of Rust: the manifests, the pinned toolchain, the image and clippy name the same.

use super::read;

/// Returns the text after `key` up to the next of `ends`, on the first line that begins with it.
fn value<'a>(text: &'a str, key: &str, ends: &[char]) -> Option<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split(ends).next()
}

/// The minimum supported version is the one that builds and tests every commit. A lower one would
/// be a promise that no test keeps.
#[test]
fn every_file_names_the_same_version_of_rust() {
    let pinned = read("rust-toolchain.toml");
    let pinned = value(&pinned, "channel = \"", &['"']).expect("a channel");
    let (minor, _patch) = pinned.rsplit_once('.').expect("a channel such as 1.95.0");
    for manifest in ["Cargo.toml", "benches/Cargo.toml", "fuzz/Cargo.toml"] {
        let text = read(manifest);
        assert_eq!(value(&text, "rust-version = \"", &['"']), Some(minor), "{manifest}");
    }
    for (file, key) in [
        ("Dockerfile", "FROM --platform=$BUILDPLATFORM rust:"),
        (".github/workflows/ci.yml", "      image: rust:"),
    ] {
        assert_eq!(value(&read(file), key, &['-', ' ', '@']), Some(minor), "{file}");
    }
    // Without a version of its own, clippy takes the manifest's `rust-version`.
    let clippy = read("clippy.toml");
    assert!(
        [None, Some(minor), Some(pinned)].contains(&value(&clippy, "msrv = \"", &['"'])),
        "clippy.toml: msrv is not {minor}"
    );
}

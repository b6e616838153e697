//! Rules of the source tree: imports, words, sizes. CONTRIBUTING.md lists them.

mod imports;
mod sizes;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(path: &Path, is_wanted: &dyn Fn(&Path) -> bool, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        if is_wanted(path) {
            into.push(path.to_owned());
        }
        return;
    }
    // cargo and git put files of their own into these.
    if path.ends_with("target") || path.ends_with(".git") {
        return;
    }
    for entry in fs::read_dir(path).unwrap().flatten() {
        collect(&entry.path(), is_wanted, into);
    }
}

/// Returns the files at or below `path` that are text and that `is_wanted` accepts, sorted: each
/// path from the project's root, and the text.
fn texts(path: &str, is_wanted: &dyn Fn(&Path) -> bool) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    collect(&root().join(path), is_wanted, &mut paths);
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let text = |path: &PathBuf| Some((name(path), fs::read_to_string(path).ok()?));
    paths.iter().filter_map(text).collect()
}

/// Folder of generated code, which keeps no rule. `outlet::grpc_generated` compares it with its
/// sources.
const GENERATED: &str = "src/outlet/grpc/generated";

/// Returns every Rust file below a folder: its path from the project's root, and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let is_source = |path: &Path| {
        let is_generated = path.starts_with(root().join(GENERATED));
        !is_generated && path.extension().is_some_and(|extension| extension == "rs")
    };
    texts(folder, &is_source)
}

/// Returns the part of a file that ships: the code without unit tests and comment lines.
fn shipped(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Fails with one line for each problem.
#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

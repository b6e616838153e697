//! Limits of sizes: files, lines, and the number of files at the top of `src/`.

use super::{assert_none, root, sources};

const FILE_LINES_MAX: usize = 400;
const LINE_CHARS_MAX: usize = 100;
/// Files with longer lines today. An entry that is no longer needed fails the test.
const LONG_LINES_IN: &[&str] = &[];
/// Lines of the median file of `src/`.
const MEDIAN_LINES_MAX: usize = 150;
const TOP_FILES_MAX: usize = 4;

#[test]
fn files_are_small_and_begin_with_their_purpose() {
    let mut problems = Vec::new();
    for folder in ["src", "tests", "examples", "benches", "fuzz"] {
        for (file, text) in sources(folder) {
            if !text.starts_with("//! ") {
                problems.push(format!("{file}: does not begin with `//!` and its purpose"));
            }
            let lines = text.lines().count();
            if FILE_LINES_MAX < lines {
                problems.push(format!("{file}: {lines} lines; the limit is {FILE_LINES_MAX}"));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn lines_are_short() {
    // rustfmt breaks neither strings nor links.
    let is_long = |line: &&str| {
        LINE_CHARS_MAX < line.chars().count() && !line.contains('"') && !line.contains("https://")
    };
    let files = ["src", "benches", "fuzz"].into_iter().flat_map(sources);
    let first_long = |text: &str| text.lines().find(is_long).map(str::to_owned);
    let long: Vec<_> =
        files.filter_map(|(file, text)| first_long(&text).map(|line| (file, line))).collect();
    let mut problems = Vec::new();
    for (file, line) in &long {
        if !LONG_LINES_IN.contains(&file.as_str()) {
            problems.push(format!("{file}: over {LINE_CHARS_MAX} characters: {}", line.trim()));
        }
    }
    for file in LONG_LINES_IN.iter().filter(|name| !long.iter().any(|(file, _)| file == *name)) {
        problems.push(format!("LONG_LINES_IN: {file} has none: remove the entry"));
    }
    assert_none(&problems);
}

#[test]
fn the_median_file_is_short() {
    let mut lines: Vec<_> = sources("src").iter().map(|(_, text)| text.lines().count()).collect();
    lines.sort_unstable();
    let median = lines[(lines.len() - 1) / 2];
    assert!(
        median <= MEDIAN_LINES_MAX,
        "the median file of src/ has {median} lines; the limit is {MEDIAN_LINES_MAX}"
    );
}

#[test]
fn the_top_of_src_has_few_files() {
    let is_top = |file: &&String| file.matches('/').count() == 1;
    let files: Vec<_> = sources("src").into_iter().map(|(file, _)| file).collect();
    let top: Vec<_> = files.iter().filter(is_top).collect();
    assert!(top.len() <= TOP_FILES_MAX, "put these into folders: {top:?}");
}

/// Clippy counts the lines of functions; this keeps its limit.
#[test]
fn functions_are_limited_by_clippy() {
    let clippy = std::fs::read_to_string(root().join("clippy.toml")).unwrap();
    assert!(clippy.contains("too-many-lines-threshold = 70\n"), "clippy.toml");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("too_many_lines = \"warn\"\n"), "Cargo.toml");
}

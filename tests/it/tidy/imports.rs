//! Imports point down: each file imports from its own folder and from the layers below it, and no
//! files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{assert_none, shipped, sources};

/// Folders and files of `src/`, highest layer first. A file imports from its own folder and from
/// lower layers; folders of one layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["server"],
    &["outlet"],
    &["inlet"],
    &["stream"],
    &["presence"],
    &["backplane", "auth", "net"],
    &["http", "telemetry"],
    &["hub"],
    &["config"],
    &["model", "limits", "clock"],
];

/// Imports that break the layers today. An entry that is no longer needed fails the test.
const LAYER_EXCEPTIONS: &[(&str, &str)] = &[];

/// Imports that close a circle today. An entry that is no longer needed fails the test.
const CIRCLE_EXCEPTIONS: &[(&str, &str)] = &[];

/// The hub names no protocol. (Its notifier uses tokio to wake a worker.)
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

/// Folders and files without a clock, lock, I/O or `async`.
const PURE: &[&str] = &[
    "src/model/",
    "src/hub/store/dedup.rs",
    "src/hub/store/read.rs",
    "src/hub/store/ring.rs",
    "src/hub/store/rings.rs",
    "src/hub/store/timeline.rs",
];
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

/// Files that each file imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns the module path of a file: `hub::store` for `src/hub/store/mod.rs`.
fn module(file: &str) -> Vec<&str> {
    let path = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".rs");
    let mut segments: Vec<_> = path.split('/').collect();
    if segments.last() == Some(&"mod") {
        segments.pop();
    }
    segments
}

/// Splits a list at the commas that stand outside of braces.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Adds the paths of a tree such as `a::{b, c::{d}}` to `into`.
fn flatten(tree: &str, before: &[String], into: &mut Vec<Vec<String>>) {
    for part in split(tree) {
        let brace = part.find('{');
        let head = brace.map_or(part, |at| &part[..at]);
        let head = head.split(" as ").next().unwrap();
        let segments = head.split("::").map(str::trim).filter(|name| !name.is_empty());
        let mut path = before.to_vec();
        path.extend(segments.map(str::to_owned));
        match brace {
            Some(at) => {
                let end = part.rfind('}').unwrap_or(part.len());
                flatten(&part[at + 1..end], &path, into);
            }
            None => into.push(path),
        }
    }
}

/// Returns the paths below `crate` that the code of the module `of` names, in `use` and elsewhere.
fn paths(code: &str, of: &[&str]) -> BTreeSet<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let is_word = code[..at].chars().next_back().is_none_or(char::is_whitespace);
        if let (true, Some(end)) = (is_word, code[at..].find(';')) {
            flatten(&code[at + "use ".len()..at + end], &[], &mut found);
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        flatten(&rest[..end.unwrap_or(rest.len())], &[], &mut found);
    }
    let absolute = |path: Vec<String>| -> Option<Vec<String>> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let parent = of[..of.len().checked_sub(supers)?].iter().map(|name| (*name).to_owned());
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" => Some(parent.chain(path[supers..].iter().cloned()).collect()),
            "self" => Some(parent.chain(path[1..].iter().cloned()).collect()),
            _ => None,
        }
    };
    found.into_iter().filter_map(absolute).filter(|path| !path.is_empty()).collect()
}

/// Returns the files of `src/` and the files that each imports: the longest part of a path that is a
/// module is the file.
fn graph() -> Graph {
    let mut files = sources("src");
    // Unit tests in files of their own do not ship.
    files.retain(|(file, _)| !file.contains("/tests/") && !file.ends_with("/tests.rs"));
    let modules: BTreeMap<Vec<&str>, &String> =
        files.iter().map(|(file, _)| (module(file), file)).collect();
    let imported = |path: &Vec<String>| {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        (1..=path.len()).rev().find_map(|len| modules.get(&path[..len]).copied())
    };
    let is_root = |file: &str| ["src/lib.rs", "src/main.rs"].contains(&file);
    let imports = |file: &String, text: &str| {
        let named = paths(&shipped(text), &module(file));
        let files = named.iter().filter_map(imported);
        files.filter(|other| *other != file && !is_root(other)).cloned().collect()
    };
    files
        .iter()
        .filter(|(file, _)| !is_root(file))
        .map(|(file, text)| (file.clone(), imports(file, text)))
        .collect()
}

fn layer(file: &str) -> Option<usize> {
    let top = module(file)[0];
    LAYERS.iter().position(|layer| layer.contains(&top))
}

fn without(graph: &Graph, imports: &[(&str, &str)]) -> Graph {
    let mut rest = graph.clone();
    for (from, to) in imports {
        if let Some(imported) = rest.get_mut(*from) {
            imported.remove(*to);
        }
    }
    rest
}

/// Removes the imports between a `mod.rs` and the files below it: a module re-exports its children.
fn without_ancestors(graph: &Graph) -> Graph {
    let is_above = |a: &str, b: &str| module(b).starts_with(&module(a));
    let apart = |file: &str, other: &str| !is_above(file, other) && !is_above(other, file);
    let keep = |(file, imported): (&String, &BTreeSet<String>)| {
        (file.clone(), imported.iter().filter(|other| apart(file, other)).cloned().collect())
    };
    graph.iter().map(keep).collect()
}

/// Returns the files that `from` reaches over one import or more.
fn reached<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(file) = next.pop() {
        for imported in graph.get(&file).into_iter().flatten() {
            if seen.insert(imported.as_str()) {
                next.push(imported.clone());
            }
        }
    }
    seen
}

/// Returns the imports that are part of a circle.
fn circular(graph: &Graph) -> Vec<(String, String)> {
    let reached: BTreeMap<_, _> = graph.keys().map(|file| (file, reached(graph, file))).collect();
    let all = graph.iter().flat_map(|(file, imported)| imported.iter().map(move |to| (file, to)));
    all.filter(|(file, to)| reached.get(to).is_some_and(|back| back.contains(file.as_str())))
        .map(|(file, to)| (file.clone(), to.clone()))
        .collect()
}

#[test]
fn paths_are_read_from_code() {
    let code = "use crate::{\n    clock,\n    hub::{Hub, store::read::Gap as G},\n};\n\
                use super::{topic, super::a::B};\nuse std::io;\nfn f() { crate::event::x() }";
    let found = paths(code, &["hub", "store", "ring"]);
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "clock",
            "event::x",
            "hub::Hub",
            "hub::a::B",
            "hub::store::read::Gap",
            "hub::store::topic"
        ]
    );
}

#[test]
fn circles_are_found() {
    let graph = |imports: &[(&str, &str)]| -> Graph {
        let mut graph = Graph::new();
        for (from, to) in imports {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            graph.entry((*to).to_owned()).or_default();
        }
        without_ancestors(&graph)
    };
    assert!(circular(&graph(&[("src/a.rs", "src/b.rs"), ("src/b.rs", "src/c.rs")])).is_empty());
    let circle = [("src/a.rs", "src/b.rs"), ("src/b.rs", "src/c.rs"), ("src/c.rs", "src/a.rs")];
    assert_eq!(circular(&graph(&circle)).len(), 3);
    let family = [("src/a/mod.rs", "src/a/b.rs"), ("src/a/b.rs", "src/a/mod.rs")];
    assert!(circular(&graph(&family)).is_empty());
}

#[test]
fn imports_point_down() {
    let graph = graph();
    let mut problems = Vec::new();
    for file in graph.keys().filter(|file| layer(file).is_none()) {
        problems.push(format!("{file}: its folder is in no layer (LAYERS)"));
    }
    let mut broken = BTreeSet::new();
    for (file, imported) in &graph {
        for to in imported {
            let is_own = module(file)[0] == module(to)[0];
            if !is_own && layer(to) <= layer(file) {
                broken.insert((file.as_str(), to.as_str()));
            }
        }
    }
    let excepted: BTreeSet<_> = LAYER_EXCEPTIONS.iter().copied().collect();
    for (file, to) in broken.difference(&excepted) {
        problems.push(format!("{file} imports {to}, which is not in a lower layer"));
    }
    for (file, to) in excepted.difference(&broken) {
        problems.push(format!("LAYER_EXCEPTIONS: {file} no longer imports {to}: remove the entry"));
    }
    assert_none(&problems);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let graph = without_ancestors(&without(&graph(), LAYER_EXCEPTIONS));
    let circles = circular(&without(&graph, CIRCLE_EXCEPTIONS));
    let problem = |(file, to): &(String, String)| format!("{file} -> {to} is part of a circle");
    let mut problems: Vec<_> = circles.iter().map(problem).collect();
    for (at, (file, to)) in CIRCLE_EXCEPTIONS.iter().enumerate() {
        let mut others = CIRCLE_EXCEPTIONS.to_vec();
        others.remove(at);
        let closes = |(a, b): &(String, String)| a == file && b == to;
        if !circular(&without(&graph, &others)).iter().any(closes) {
            problems.push(format!("CIRCLE_EXCEPTIONS: {file} -> {to} closes no circle: remove it"));
        }
    }
    assert_none(&problems);
}

#[test]
fn the_hub_names_no_protocol_and_pure_files_no_time() {
    let mut problems = Vec::new();
    let files = sources("src");
    for (file, text) in &files {
        let code = shipped(text);
        let named = |never: &[&'static str]| -> Vec<&'static str> {
            never.iter().filter(|name| code.contains(*name)).copied().collect()
        };
        if file.starts_with("src/hub/") {
            problems.extend(named(HUB_NEVER_NAMES).iter().map(|name| format!("{file}: {name}")));
        }
        if PURE.iter().any(|pure| file.starts_with(pure)) {
            problems.extend(named(PURE_NEVER_NAMES).iter().map(|name| format!("{file}: {name}")));
        }
        if file != "src/clock.rs" && code.contains("SystemTime") {
            problems.push(format!("{file}: only clock.rs reads the wall clock"));
        }
        if file != "src/cli/mod.rs" && code.contains("env::var") {
            problems.push(format!("{file}: only cli/mod.rs reads the environment"));
        }
    }
    for pure in PURE.iter().filter(|pure| !files.iter().any(|(file, _)| file.starts_with(*pure))) {
        problems.push(format!("PURE: {pure} is gone"));
    }
    assert_none(&problems);
}

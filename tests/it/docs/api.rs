//! The documents of the interface (`openapi.json`, `asyncapi.json`) name what the gateway has: paths, methods,
//! statuses, parameters and reasons. `tests/artefacts/test_api_*.py` checks the rest.

use std::collections::BTreeSet;

use serde_json::Value;

use super::read;
use crate::support::{gateway::Gateway, http1};

/// Returns the part of `text` between `start` and the next `end`.
pub fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} after {start:?}")).0
}

/// Returns the texts in quotes on the lines of `text` that contain `mark`.
pub fn quoted<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    let lines = text.lines().filter(|line| line.contains(mark));
    lines.filter_map(|line| line.split('"').nth(1)).collect()
}

/// Returns the parameters in the query of an operation.
fn parameters(openapi: &Value, path: &str, method: &str) -> BTreeSet<String> {
    let listed = openapi["paths"][path][method]["parameters"].as_array().unwrap();
    let resolved = listed.iter().map(|parameter| match parameter["$ref"].as_str() {
        Some(name) => openapi.pointer(name.strip_prefix('#').unwrap()).unwrap(),
        None => parameter,
    });
    let in_query = resolved.filter(|parameter| parameter["in"] == "query");
    in_query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
}

/// Compares the paths and methods of the document with the list of routes. A path answers
/// other methods with 405, and names its own in `Allow`.
#[test]
fn paths_and_methods_are_those_of_the_routes() {
    let (dev, serve) =
        (Gateway::dev(&[]), Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]));
    let [of_dev, of_serve] = [&dev, &serve].map(|gateway| gateway.get("/openapi.json", &[]).json());
    let source = read("src/server/routes.rs");
    let routes = quoted(&source, " route(\"");
    assert!(10 < routes.len(), "{routes:?}");
    let paths = of_dev["paths"].as_object().unwrap();
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), routes);
    for (path, item) in paths {
        let alias = item["$ref"].as_str().map(|name| name.replace("#/paths/~1", "/"));
        let item = alias.map_or(item, |path| &paths[&path]);
        let is_method = |key: &&str| ["get", "head", "post", "options"].contains(key);
        let documented: BTreeSet<_> =
            item.as_object().unwrap().keys().map(String::as_str).collect();
        let documented: BTreeSet<_> =
            documented.into_iter().filter(|key| is_method(key)).map(str::to_uppercase).collect();
        let address = if path == "/metrics" { dev.ops } else { dev.address };
        let url = path.replace("{topic}", "orders").replace("{file}", "page.js");
        let refused = http1::request(address, "DELETE", &url, &[], b"");
        assert_eq!(refused.status, 405, "{path}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{path}");
        let allowed = refused.header("allow").unwrap().split(", ").map(str::to_owned);
        assert_eq!(allowed.collect::<BTreeSet<_>>(), documented, "{path}");
        // The page is not in the document of a gateway that does not have it.
        let is_served = path == "/metrics"
            || http1::request(serve.address, "DELETE", &url, &[], b"").status == 405;
        assert_eq!(of_serve["paths"].get(path).is_some(), is_served, "{path}");
    }
}

#[test]
fn documents_have_the_version_of_the_crate_and_may_be_cached_and_read_by_pages() {
    let gateway = Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]);
    for path in ["/openapi.json", "/asyncapi.json"] {
        let answer = gateway.get(path, &[("Origin", "https://editor.example")]);
        assert_eq!(answer.json()["info"]["version"], env!("CARGO_PKG_VERSION"), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
    }
}

/// The query parameters that the code reads are those of the document.
#[test]
fn parameters_are_those_that_the_code_reads() {
    let openapi = Gateway::dev(&[]).get("/openapi.json", &[]).json();
    for (file, name, path, method) in [
        ("src/stream/request.rs", "struct Parameters", "/events", "get"),
        ("src/outlet/tickets.rs", "struct Renew", "/renew", "post"),
    ] {
        let source = read(file);
        let lines = between(&source, &format!("{name} {{"), "\n}").lines().map(str::trim);
        let fields = lines.map(|line| line.trim_start_matches("pub "));
        let fields = fields.filter(|line| !line.starts_with(['/', '#']));
        let fields: BTreeSet<_> =
            fields.filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect();
        assert!(!fields.is_empty(), "{file}: {name}");
        assert_eq!(parameters(&openapi, path, method), fields, "{path}: {file} reads others");
    }
}

/// The statuses in docs/ are in the document.
#[test]
fn statuses_of_the_tables_are_in_the_document() {
    let openapi = Gateway::dev(&[]).get("/openapi.json", &[]).json();
    for (file, section, end, path, method) in [
        ("docs/pushing.md", "\n## Answers\n", "\n## CloudEvents\n", "/push/{topic}", "post"),
        ("docs/publishing.md", "\n## Answers\n", "\n## Recipes\n", "/publish/{topic}", "post"),
        ("docs/reading.md", "\n## Refusals\n", "\n## Formats\n", "/events", "get"),
    ] {
        let text = read(file);
        let rows = between(&text, section, end).lines().filter_map(|line| line.strip_prefix("| "));
        let cells = rows.filter_map(|row| row.split('|').next());
        let words = cells.flat_map(|cell| cell.split([',', ' ']));
        let statuses: BTreeSet<_> = words.filter(|word| word.parse::<u16>().is_ok()).collect();
        assert!(5 < statuses.len(), "{section}: {statuses:?}");
        let documented = &openapi["paths"][path][method]["responses"];
        for status in statuses {
            assert!(documented.get(status).is_some(), "{path}: {status} is not documented");
        }
    }
}

/// The codes in docs/websocket.md are those of the code. 1000 is the client's.
#[test]
fn close_codes_are_those_of_the_code() {
    let source = read("src/outlet/client/refusal.rs");
    let lines = between(&source, "enum CloseCode {", "\n}").lines();
    let codes =
        lines.filter_map(|line| line.split_once(" = ")?.1.trim_end_matches(',').parse().ok());
    let codes: BTreeSet<u16> = codes.chain([1000]).collect();
    let text = read("docs/websocket.md");
    let rows = between(&text, "\n## Close codes\n", "\n## Limits\n").lines();
    let cells = rows.filter_map(|row| row.strip_prefix("| ")?.split([',', ' ']).next());
    let documented: BTreeSet<u16> = cells.filter_map(|cell| cell.parse().ok()).collect();
    assert_eq!(documented, codes);
}

/// The reasons in control messages are those of the code.
#[test]
fn reasons_are_those_of_the_code() {
    let asyncapi = Gateway::dev(&[]).get("/asyncapi.json", &[]).json();
    for (file, of, schema) in [
        ("src/model/control.rs", "impl EndReason", "End"),
        ("src/model/gap.rs", "impl GapReason", "Gap"),
    ] {
        let source = read(file);
        let reasons = quoted(between(&source, of, "\n}"), "Self::");
        let place = format!("/components/schemas/{schema}/properties/reason/enum");
        let documented = asyncapi.pointer(&place).unwrap().as_array().unwrap();
        let documented: BTreeSet<_> = documented.iter().filter_map(Value::as_str).collect();
        assert_eq!(documented, reasons, "{file}");
    }
}

//! Which of our crates may depend on which.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Violation;

/// What each crate may depend on; the same list stands in ARCHITECTURE.md.
const WALLS: &[(&str, &[&str])] = &[
    ("tombolo-netstate", &[]),
    ("tombolo-store", &[]),
    ("tombolo-dns", &[]),
    ("tombolo-api", &[]),
    ("tombolo-core", &["tombolo-netstate"]),
    ("tombolo-kernel", &["tombolo-netstate"]),
    (
        "tombolo-lab",
        &["tombolo-netstate", "tombolo-kernel", "tombolo-core"],
    ),
    ("tombolo-cli", &["tombolo-api"]),
    (
        "tombolo-daemon",
        &[
            "tombolo-api",
            "tombolo-core",
            "tombolo-kernel",
            "tombolo-store",
            "tombolo-dns",
            "tombolo-netstate",
        ],
    ),
    ("tombolo", &["tombolo-cli", "tombolo-daemon"]),
];
/// Crates that nothing ships, which may use any other.
const FREE: [&str; 3] = ["tombolo-tests", "tombolo-benches", "xtask"];
/// The crate that tests of any crate may use.
const LAB: &str = "tombolo-lab";
/// Crates under which no asynchronous runtime may lie.
const RUNTIME_FREE: [&str; 3] = ["tombolo-netstate", "tombolo-core", "tombolo-dns"];
const RUNTIME: &str = "tokio";

/// Compares the dependencies that the manifests declare with the walls.
pub(super) fn check(metadata: &Value) -> Vec<Violation> {
    let members = members(metadata);
    let names: BTreeSet<&str> = members.iter().map(|member| text(&member["name"])).collect();
    let mut found = Vec::new();
    for member in members {
        let name = text(&member["name"]);
        if FREE.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = WALLS.iter().find(|(walled, _)| *walled == name) else {
            let message = format!("crate `{name}` has no wall: add it to xtask/src/tidy/walls.rs");
            found.push(violation(metadata, member, message));
            continue;
        };
        for dependency in array(&member["dependencies"]) {
            let other = text(&dependency["name"]);
            let test_only = dependency["kind"] == "dev" && other == LAB;
            if names.contains(other) && !allowed.contains(&other) && !test_only {
                let message = format!(
                    "`{name}` may not depend on `{other}`: move what both need to a crate below \
                     them, or take it as an argument"
                );
                found.push(violation(metadata, member, message));
            }
        }
    }
    found
}

/// Looks for the runtime among everything that the pure crates are built with.
pub(super) fn check_reach(metadata: &Value) -> Vec<Violation> {
    let edges = normal_edges(metadata);
    let names: BTreeMap<&str, &str> = array(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut found = Vec::new();
    for member in members(metadata) {
        let name = text(&member["name"]);
        if !RUNTIME_FREE.contains(&name) {
            continue;
        }
        if let Some(chain) = chain(text(&member["id"]), &edges, &names) {
            let message =
                format!("`{RUNTIME}` lies under `{name}` ({chain}): drop that dependency");
            found.push(violation(metadata, member, message));
        }
    }
    found
}

/// The way from `start` to the runtime, as names joined by arrows.
fn chain<'a>(
    start: &'a str,
    edges: &BTreeMap<&'a str, Vec<&'a str>>,
    names: &BTreeMap<&'a str, &'a str>,
) -> Option<String> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::from([(start, start)]);
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        if names.get(id) == Some(&RUNTIME) {
            let mut way = vec![RUNTIME];
            let mut at = id;
            while at != start {
                at = came_from[at];
                way.push(names.get(at).unwrap_or(&"?"));
            }
            way.reverse();
            return Some(way.join(" -> "));
        }
        for next in edges.get(id).into_iter().flatten() {
            if !came_from.contains_key(next) {
                came_from.insert(next, id);
                open.push(next);
            }
        }
    }
    None
}

fn normal_edges(metadata: &Value) -> BTreeMap<&str, Vec<&str>> {
    let nodes = array(&metadata["resolve"]["nodes"]).iter();
    nodes
        .map(|node| {
            let normal =
                |dep: &&Value| array(&dep["dep_kinds"]).iter().any(|k| k["kind"].is_null());
            let dependencies = array(&node["deps"]).iter().filter(normal);
            (
                text(&node["id"]),
                dependencies.map(|dep| text(&dep["pkg"])).collect(),
            )
        })
        .collect()
}

fn members(metadata: &Value) -> Vec<&Value> {
    let ids: BTreeSet<&str> = array(&metadata["workspace_members"])
        .iter()
        .map(text)
        .collect();
    let packages = array(&metadata["packages"]).iter();
    packages
        .filter(|package| ids.contains(text(&package["id"])))
        .collect()
}

fn violation(metadata: &Value, package: &Value, message: String) -> Violation {
    let manifest = text(&package["manifest_path"]);
    let root = text(&metadata["workspace_root"]);
    let file = manifest
        .strip_prefix(root)
        .unwrap_or(manifest)
        .trim_start_matches('/');
    Violation::new(file, 1, message)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

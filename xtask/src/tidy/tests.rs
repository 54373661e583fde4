//! The rules on sample text.

use serde_json::{Value, json};

use super::architecture::{self, named_paths};
use super::mask::code_only;
use super::{File, Violation, rules, walls};

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn places(violations: &[Violation]) -> Vec<usize> {
    violations.iter().map(|violation| violation.line).collect()
}

fn function_of(lines: usize) -> String {
    format!(
        "fn long(\n    a: [u8; 2],\n) {{\n{}}}\n",
        "    step();\n".repeat(lines - 4)
    )
}

#[test]
fn comments_strings_and_characters_are_no_code() {
    let source =
        "a /* { /* } */ \" */ b \"{\\\"\" c r#\"}\"{\"# d '{' e '\\'' f<'x> // }\nbr\"{\" g";
    let code = code_only(source);
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "b", "c", "d", "e", "f<'x>", "b", "g"]);
    assert_eq!(code.matches('\n').count(), 1);
    assert_eq!(code.chars().count(), source.chars().count());
}

#[test]
fn unclosed_text_does_not_hang_or_panic() {
    for source in ["\"abc", "r#\"abc", "/* abc", "'\\", "r", "'", "\"\\"] {
        assert_eq!(code_only(source).chars().count(), source.chars().count());
    }
}

#[test]
fn a_function_may_have_seventy_lines() {
    let fine = file("crates/core/src/a.rs", &function_of(70));
    assert_eq!(rules::long_functions(&fine), []);
    let long = file("crates/core/src/a.rs", &format!("\n{}", function_of(71)));
    let found = rules::long_functions(&long);
    assert_eq!(places(&found), [2]);
    let shown = found[0].to_string();
    assert!(
        shown.starts_with("crates/core/src/a.rs:2: function `long` has 71 lines"),
        "{shown}"
    );
}

#[test]
fn functions_are_found_by_name_and_extent() {
    let code = "trait T { fn declared(&self) -> [u8; 4]; }\nimpl X {\n    pub fn one() {}\n    \
                fn two() {\n        let f: fn (u8) = g;\n    }\n}\n";
    let found = rules::functions(code);
    let shown: Vec<_> = found
        .iter()
        .map(|f| (f.name.as_str(), f.line, f.lines))
        .collect();
    assert_eq!(shown, [("one", 3, 1), ("two", 4, 3)]);
}

#[test]
fn braces_in_strings_do_not_end_a_function() {
    let text = format!(
        "fn a() {{\n    let x = \"}}\";\n{}}}\n",
        "    b();\n".repeat(70)
    );
    assert_eq!(
        places(&rules::long_functions(&file("xtask/src/a.rs", &text))),
        [1]
    );
}

#[test]
fn tests_may_be_long() {
    let inline = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function_of(700));
    for (path, text) in [
        ("crates/core/src/a.rs", inline.clone()),
        ("crates/core/src/a/tests.rs", function_of(700)),
        ("tests/src/a.rs", function_of(700)),
    ] {
        let file = file(path, &text);
        assert_eq!(rules::long_functions(&file), [], "{path}");
        assert_eq!(rules::long_file(&file), [], "{path}");
    }
    let after = file(
        "crates/core/src/a.rs",
        &format!("{inline}\n{}", function_of(80)),
    );
    assert_eq!(places(&rules::long_functions(&after)), [705]);
}

#[test]
fn a_test_module_elsewhere_hides_nothing_after_it() {
    let text = format!("#[cfg(test)]\nmod tests;\n\n{}", function_of(71));
    assert_eq!(
        places(&rules::long_functions(&file("xtask/src/a.rs", &text))),
        [4]
    );
}

#[test]
fn a_file_may_have_six_hundred_lines() {
    let tests = "#[cfg(test)]\nmod tests {\n}\n";
    let text = |lines: usize| format!("{}{tests}", "const A: u8 = 1;\n".repeat(lines));
    assert_eq!(rules::long_file(&file("xtask/src/a.rs", &text(600))), []);
    assert_eq!(
        places(&rules::long_file(&file("xtask/src/a.rs", &text(601)))),
        [601]
    );
    assert_eq!(rules::long_file(&file("docs/a.md", &text(900))), []);
}

#[test]
fn unsafe_code_belongs_to_the_kernel_crate() {
    let text = "//! no unsafe here\n#![deny(unsafe_code)]\nfn a() { unsafe { b() } }\n";
    assert_eq!(
        places(&rules::unsafe_code(&file("crates/core/src/a.rs", text))),
        [3]
    );
    assert_eq!(
        rules::unsafe_code(&file("crates/kernel/src/a.rs", text)),
        []
    );
    assert_eq!(rules::unsafe_code(&file("docs/a.md", text)), []);
}

#[test]
fn lints_are_expected_and_never_allowed() {
    let text = "#![allow(dead_code)]\n#[expect(unused, reason = \"allow(x)\")]\n#[cfg_attr(\n    \
                test,\n    allow(unused)\n)]\nfn a() { allow(b); disallow(c) }\n#[my_allow(x)]\n";
    assert_eq!(
        places(&rules::allow_attributes(&file("tests/src/a.rs", text))),
        [1, 3]
    );
}

#[test]
fn tests_are_not_ignored() {
    let text = "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n#[ignored]\nstruct B;\n#[ignore]\n";
    assert_eq!(
        places(&rules::ignored_tests(&file("tests/src/a.rs", text))),
        [2, 6]
    );
}

#[test]
fn work_is_not_put_off() {
    let word = concat!("TO", "DO");
    let phrase = concat!("For ", "now");
    let text = format!("ok\n// {word}: later\nMASTODO N\n{phrase}, ok\nfor nowhere\nXXXX\n");
    assert_eq!(
        places(&rules::forbidden_words(&file("docs/a.md", &text))),
        [2, 4]
    );
    let stub = concat!("fn a() { to", "do!() }\n");
    assert_eq!(
        places(&rules::forbidden_words(&file("xtask/src/a.rs", stub))),
        [1]
    );
}

#[test]
fn paths_are_told_from_other_quoted_words() {
    let text = "`crates/core` and `Cargo.toml`, not `a::b`, `/run/x`, `10.0.0.0/8`, `x/*`, `a b/c`\n\
                ```\n`in/a/fence`\n```\n`docs/adr/`\n";
    let found = named_paths(text);
    let shown: Vec<_> = found
        .iter()
        .map(|(line, path)| (*line, path.as_str()))
        .collect();
    assert_eq!(
        shown,
        [(1, "crates/core"), (1, "Cargo.toml"), (5, "docs/adr/")]
    );
}

#[test]
fn the_map_of_the_code_is_there_short_and_true() {
    let root = crate::workspace::root();
    assert_eq!(places(&architecture::check(root, &[])), [1]);
    let text = format!(
        "`xtask/src` `mask.rs`\n`xtask/gone`\n`gone.rs`\n{}",
        "\n".repeat(298)
    );
    let files = [
        file("ARCHITECTURE.md", &text),
        file("xtask/src/tidy/mask.rs", ""),
    ];
    assert_eq!(places(&architecture::check(root, &files)), [301, 2, 3]);
}

fn package(name: &str, dependencies: &Value) -> Value {
    json!({
        "id": name,
        "name": name,
        "manifest_path": format!("/top/{name}/Cargo.toml"),
        "dependencies": dependencies,
    })
}

fn metadata(packages: &[Value], nodes: &Value) -> Value {
    let members: Vec<&Value> = packages
        .iter()
        .map(|package| &package["id"])
        .filter(|id| *id != "tokio")
        .collect();
    json!({
        "workspace_root": "/top",
        "workspace_members": members,
        "packages": packages,
        "resolve": { "nodes": nodes },
    })
}

#[test]
fn a_crate_is_a_wall() {
    let lab_for_tests = json!([{ "name": "tombolo-lab", "kind": "dev" }, { "name": "serde" }]);
    let packages = [
        package("tombolo-netstate", &lab_for_tests),
        package("tombolo-lab", &json!([{ "name": "tombolo-core" }])),
        package("tombolo-core", &json!([{ "name": "tombolo-lab" }])),
        package(
            "tombolo-cli",
            &json!([{ "name": "tombolo-core", "kind": "dev" }]),
        ),
        package("tombolo-tests", &json!([{ "name": "tombolo-cli" }])),
        package("tombolo-new", &json!([])),
    ];
    let found = walls::check(&metadata(&packages, &json!([])));
    let files: Vec<&str> = found
        .iter()
        .map(|violation| violation.file.as_str())
        .collect();
    let expected = [
        "tombolo-core/Cargo.toml",
        "tombolo-cli/Cargo.toml",
        "tombolo-new/Cargo.toml",
    ];
    assert_eq!(files, expected);
}

#[test]
fn no_runtime_lies_under_the_pure_crates() {
    let packages = [
        package("tombolo-core", &json!([])),
        package("tombolo-dns", &json!([])),
        package("middle", &json!([])),
        package("tokio", &json!([])),
    ];
    let normal = json!([{ "kind": null }]);
    let dev = json!([{ "kind": "dev" }]);
    let nodes = json!([
        { "id": "tombolo-core", "deps": [{ "pkg": "middle", "dep_kinds": normal }] },
        { "id": "tombolo-dns", "deps": [{ "pkg": "tokio", "dep_kinds": dev }] },
        { "id": "middle", "deps": [{ "pkg": "tokio", "dep_kinds": normal }] },
    ]);
    let found = walls::check_reach(&metadata(&packages, &nodes));
    assert_eq!(found.len(), 1);
    let shown = found[0].to_string();
    assert!(
        shown.contains("(tombolo-core -> middle -> tokio)"),
        "{shown}"
    );
}

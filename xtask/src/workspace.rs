//! Where the workspace lies and what cargo knows about it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The top directory of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// `cargo metadata` of the workspace, with the resolved graph.
pub(crate) fn metadata() -> Result<Value> {
    let mut cargo = process::cargo();
    cargo
        .args(["metadata", "--format-version", "1"])
        .current_dir(root());
    let text = process::read(&mut cargo)?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

/// The directory that cargo builds into.
pub(crate) fn target_directory(metadata: &Value) -> Result<PathBuf> {
    let path = metadata["target_directory"].as_str();
    path.map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// Builds the `tombolo` binary and returns where cargo put it.
pub(crate) fn build_binary(release: bool) -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["build", "--package", "tombolo", "--bin", "tombolo"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if release {
        cargo.arg("--release");
    }
    cargo
        .current_dir(root())
        .stderr(std::process::Stdio::inherit());
    let messages = process::read(&mut cargo)?;
    executable(&messages).context("cargo built no binary named tombolo")
}

fn executable(messages: &str) -> Option<PathBuf> {
    let mut parsed = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.find_map(|message| {
        let ours = message["target"]["name"] == "tombolo";
        message["executable"]
            .as_str()
            .filter(|_| ours)
            .map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_read_from_cargo_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"tombolo"},"executable":"/t/x"}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/x")));
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        assert!(root().join("Cargo.toml").is_file());
        assert!(root().join("xtask/Cargo.toml").is_file());
    }
}

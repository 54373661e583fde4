//! The configuration, and what is refused in it.

use std::fs;

use tombolo_tests::Stage;

const FILE: &str = "/run/tombolo.toml";

/// What `tombolo daemon` with these words says, on standard output and standard error, and whether it succeeds.
fn daemon(stage: &Stage, words: &[&str]) -> (bool, String, String) {
    let output = stage
        .tombolo_command()
        .arg("daemon")
        .args(words)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_resolved_configuration_is_shown_with_flags_over_the_file() {
    let Some(stage) = Stage::bare() else { return };
    fs::write(
        stage.path(FILE),
        "mtu = 1400\nip-forward = false\nprepared-namespaces = 2\n\n[bridge]\nbip = \"10.9.0.1/24\"\nicc = false\n",
    )
    .unwrap();
    let words = [
        "--check-config",
        "--config",
        FILE,
        "--mtu",
        "1300",
        "--ip-masq",
        "false",
        "--dns-ttl",
        "9",
        "--dns-listen",
        "127.0.0.1",
    ];
    let (success, shown, complaint) = daemon(&stage, &words);
    assert!(success, "{complaint}");
    for line in [
        "mtu = 1300",
        "ip-forward = false",
        "prepared-namespaces = 2",
        "bip = \"10.9.0.1/24\"",
        "icc = false",
        "ip-masq = false",
        "run-dir = \"/run/tombolo\"",
        "log-level = \"info\"",
        "ttl-seconds = 9",
        "forward-single-labels = false",
        "cache-bytes = 4194304",
        "listen = [\"127.0.0.1:53\"]",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "no `{line}` in:\n{shown}"
        );
    }
    // What is shown can be used, and is shown again.
    fs::write(stage.path(FILE), &shown).unwrap();
    assert_eq!(
        daemon(&stage, &["--check-config", "--config", FILE]).1,
        shown
    );
    assert!(
        !stage.path("/run/tombolo").exists(),
        "a check makes nothing"
    );
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let Some(stage) = Stage::bare() else { return };
    let before = stage.traces().unwrap();
    for (text, word) in [
        ("nonsense = 1", "nonsense"),
        ("[bridge]\nbipp = \"10.9.0.1/24\"", "bipp"),
        ("[tcp]\nlisten = \"127.0.0.1:1\"\nplain = true", "plain"),
        ("mtu = \"large\"", "mtu"),
        ("run-dir = \"here\"", "run-dir"),
        ("log-level = \"loud\"", "log-level"),
        ("prepared-namespaces = 257", "prepared-namespaces"),
        ("[bridge]\nbip = \"fd00::1/64\"", "bip"),
        ("[dns]\nlisten = [\"here\"]", "here"),
        ("[dns]\ndomain = \"a b\"", "dns.domain"),
        (
            "[[default-address-pools]]\nbase = \"10.0.0.0/8\"\nsize = 4",
            "default-address-pools",
        ),
        ("mtu = ", "tombolo.toml"),
    ] {
        fs::write(stage.path(FILE), text).unwrap();
        let (success, _, complaint) = daemon(&stage, &["--config", FILE]);
        assert!(!success, "`{text}` is accepted");
        assert!(
            complaint.contains(word),
            "`{text}` is refused without `{word}`: {complaint}"
        );
    }
    let (success, _, complaint) = daemon(&stage, &["--config", "/run/missing.toml"]);
    assert!(
        !success && complaint.contains("/run/missing.toml"),
        "{complaint}"
    );
    let (success, _, complaint) = daemon(&stage, &["--no-such-flag"]);
    assert!(
        !success && complaint.contains("--no-such-flag"),
        "{complaint}"
    );
    fs::remove_file(stage.path(FILE)).unwrap();
    assert_eq!(stage.traces().unwrap(), before);
}

#[test]
fn a_second_daemon_in_the_same_namespace_is_refused() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    let other = ["--run-dir", "/run/other", "--state-dir", "/var/lib/other"];
    let (success, _, complaint) = daemon(&stage, &other);
    assert!(!success);
    assert!(complaint.contains("another tombolo daemon"), "{complaint}");
    assert_eq!(stage.traces().unwrap(), before);
    stage.client().version().unwrap();
}

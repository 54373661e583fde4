//! What is refused: words that cannot be names, servers or options, places without a resolver, and too many.

use tombolo_tests::Stage;

use crate::scene::{assert_missing, assert_named};

#[test]
fn what_cannot_be_a_name_or_a_setting_is_refused_and_leaves_nothing() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n");
    stage.ok("sandbox create --name there --network n");
    let traces = stage.traces().unwrap();
    let label = "a".repeat(64);
    let name = ["a".repeat(63).as_str(); 4].join(".") + ".b";
    for (words, told) in [
        ("--network-alias bad/alias", "bad/alias"),
        ("--network-alias=-bad", "-bad"),
        ("--network-alias bad-", "bad-"),
        ("--network-alias a..b", "a..b"),
        ("--network-alias .", "."),
        ("--network-alias bäd", "letters"),
        (&format!("--network-alias {label}"), "63"),
        (&format!("--network-alias {name}"), "253"),
        ("--hostname bad/host", "bad/host"),
        (&format!("--hostname {label}x"), "too long"),
        ("--dns 192.0.2.300", "192.0.2.300"),
        ("--dns dns.example.com", "dns.example.com"),
        ("--dns 192.0.2.1:53", "192.0.2.1:53"),
        ("--dns-search bad/domain", "bad/domain"),
        (&format!("--dns-search {label}.example"), "63"),
        ("--dns-option #comment", "#comment"),
        (&format!("--dns-option {label}x"), "option"),
        ("--add-host nameless", "nameless"),
        ("--add-host bad/name:192.0.2.1", "bad/name"),
        ("--add-host name:192.0.2.300", "192.0.2.300"),
    ] {
        let line = format!("sandbox create --name refused --network n {words}");
        stage.assert_refused(&line, 2, &[told]);
    }
    stage.assert_refused(
        "network connect n there --alias bad/alias",
        2,
        &["bad/alias"],
    );
    for (words, told) in [
        ("--dns x", "x"),
        ("--dns-search bad/domain", "bad/domain"),
        ("--dns-option ;comment", ";comment"),
        ("--resolver everywhere", "everywhere"),
        ("--dns-forward sometimes", "sometimes"),
    ] {
        stage.assert_refused(&format!("network create refused {words}"), 2, &[told]);
    }
    stage.assert_traces(&traces);
    assert_eq!(stage.tries("sandbox inspect refused").code, Some(5));
    assert_eq!(stage.tries("network inspect refused").code, Some(5));
}

#[test]
fn a_resolver_at_a_gateway_that_is_not_there_is_refused() {
    let Some(stage) = Stage::start() else { return };
    stage.shell("ip link add br9 type bridge && ip link set br9 up");
    let traces = stage.traces().unwrap();
    for (words, told) in [
        ("--internal --gateway-mode isolated", "isolated"),
        (
            "--internal --ipv6 --gateway-mode isolated --subnet fd91::/64",
            "isolated",
        ),
        (
            "--device br9 --subnet 10.84.0.0/24 --gateway 10.84.0.7",
            "gateway",
        ),
    ] {
        let line = format!("network create refused --resolver gateway {words}");
        stage.assert_refused(&line, 2, &["resolver", told, "hint"]);
    }
    stage.assert_traces(&traces);
    // With one family that is not isolated it answers there.
    stage.ok(
        "network create half --internal --resolver gateway --ipv6 --gateway-mode-ipv6 isolated",
    );
    stage.ok("sandbox create --name s --network half");
    let conf = crate::scene::file(&stage, "s", "resolv.conf");
    let gateway = stage.gateway("half", false);
    assert!(conf.contains(&format!("nameserver {gateway}\n")), "{conf}");
    assert_eq!(conf.matches("\nnameserver").count(), 1, "{conf}");
}

#[test]
fn there_are_as_many_names_and_settings_as_the_limits_say_and_no_more() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n");
    let words = |flag: &str, word: &str, count: usize| {
        let words = (0..count).map(|n| format!("{flag} {}", word.replace('#', &n.to_string())));
        words.collect::<Vec<_>>().join(" ")
    };
    for (flag, word, limit) in [
        ("--network-alias", "alias-#", 64),
        ("--dns", "192.0.2.#", 32),
        ("--dns-search", "d#.example", 64),
        ("--dns-option", "attempts:#", 64),
    ] {
        let line = |count| {
            let many = words(flag, word, count);
            format!("sandbox create --name many --network n {many}")
        };
        let refused = stage.tries(&line(limit + 1));
        assert!([2, 3].contains(&refused.code.unwrap()), "{refused:?}");
        assert!(refused.stderr.contains(&limit.to_string()), "{refused:?}");
        stage.ok(&line(limit));
        let many = stage.place("many");
        assert_named(&many, "many", &many.addresses);
        if flag == "--network-alias" {
            assert_named(&many, "alias-0", &many.addresses);
            assert_named(&many, "alias-63.n", &many.addresses);
            assert_missing(&many, "alias-64");
        }
        stage.ok("sandbox rm many");
    }
    stage.assert_in_place();
}

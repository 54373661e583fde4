//! Programs that people use, in sandboxes with the files that they are given.

use std::process::Command;

use tombolo_lab::node::{FAR_V4, wait_until};
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

use crate::scene::{RECORDED, idle, inside, recorded, tries_inside};

/// What getaddrinfo(3) says of a name, by any C library.
const GETADDRINFO: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int count, char **words) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *one;
    for (int n = 1; n < count; n++) {
        int error = getaddrinfo(words[n], 0, &hints, &found);
        if (error) { printf("%s: %s\n", words[n], gai_strerror(error)); continue; }
        for (one = found; one; one = one->ai_next) {
            char text[64] = "", host[256] = "";
            getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
            getnameinfo(one->ai_addr, one->ai_addrlen, host, sizeof host, 0, 0, 0);
            printf("%s %s %s\n", words[n], text, host);
        }
    }
}
"#;

/// A network with two programs on it: `web`, also called `www`, and `client`.
fn pair(stage: &Stage) -> (String, String) {
    stage.ok("network create one --ipv6");
    let web = idle(stage, "web", "--network one --network-alias www");
    idle(stage, "client", "--network one");
    (web.v4().to_string(), web.v6().to_string())
}

#[test]
fn the_c_library_of_debian_finds_names_and_addresses() {
    let Some((stage, recorder)) = recorded("", &[]) else {
        return;
    };
    let (v4, v6) = pair(&stage);
    for name in [
        "web",
        "www",
        "WEB",
        "web.one",
        "www.one.tombolo.internal",
        "web.",
    ] {
        let said = inside(&stage, "client", &format!("getent ahosts {name}"));
        let addresses: std::collections::BTreeSet<&str> = said
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(addresses, [v4.as_str(), &v6].into(), "{name}: {said}");
    }
    for address in [&v4, &v6] {
        let said = inside(&stage, "client", &format!("getent hosts {address}"));
        assert!(said.ends_with(" web.one"), "{said}");
    }
    let missing = tries_inside(&stage, "client", "getent ahosts nobody");
    assert_eq!(missing.code, Some(2), "{missing:?}");
    assert_eq!(recorder.asked(), [""; 0]);
    let said = inside(&stage, "client", "getent ahostsv4 www.example.com");
    assert!(said.contains(&RECORDED.to_string()), "{said}");
}

#[test]
fn python_finds_names_and_addresses() {
    let Some(stage) = Stage::start() else { return };
    let (v4, v6) = pair(&stage);
    let program = format!(
        "import socket as s\n\
         found = s.getaddrinfo('www', 80, type=s.SOCK_STREAM)\n\
         assert {{one[4][0] for one in found}} == {{'{v4}', '{v6}'}}, found\n\
         assert s.gethostbyname('web') == '{v4}'\n\
         for address in ('{v4}', '{v6}'):\n    \
             assert s.gethostbyaddr(address)[0] == 'web.one', s.gethostbyaddr(address)\n\
         assert s.getfqdn('{v4}') == 'web.one'\n\
         try: s.getaddrinfo('nobody', 80)\n\
         except s.gaierror as error: assert error.errno == s.EAI_NONAME, error\n\
         else: raise Exception('nobody is there')\n"
    );
    let said = stage.node_tombolo(&["exec", "client", "/usr/bin/python3", "-c", &program]);
    assert!(said.success(), "{said:?}");
}

#[test]
fn busybox_finds_names_and_curl_fetches_by_them() {
    let Some(stage) = Stage::start() else { return };
    let (v4, v6) = pair(&stage);
    let said = inside(&stage, "client", "busybox nslookup web 2>&1");
    assert!(said.contains("127.0.0.11"), "{said}");
    assert!(said.contains(&v4) && said.contains(&v6), "{said}");
    let said = inside(&stage, "client", &format!("busybox nslookup {v4} 2>&1"));
    assert!(said.contains("web.one"), "{said}");
    let missing = tries_inside(&stage, "client", "busybox nslookup nobody 2>&1");
    assert!(
        missing.stdout.contains("NXDOMAIN") && !missing.success(),
        "{missing:?}"
    );
    stage.ok_words(&[
        "exec",
        "-d",
        "web",
        "sh",
        "-c",
        "mkdir /run/www && echo fetched >/run/www/index.html && exec busybox httpd -f -p 8000 -h /run/www",
    ]);
    for name in ["web", "www", "web.one", "web.tombolo.internal"] {
        // Debian's static busybox crashes in getaddrinfo(3), wherever it runs.
        let fetch = format!("curl -sS -m 5 http://{name}:8000/");
        let mut said = tries_inside(&stage, "client", &fetch);
        wait_until(PATIENCE, || {
            said = tries_inside(&stage, "client", &fetch);
            said.success()
        });
        assert_eq!(said.stdout, "fetched\n", "{said:?}");
    }
}

#[test]
fn the_c_library_of_alpine_finds_names_and_addresses() {
    let Some((stage, recorder)) = recorded("search corp.example\n", &[]) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("ask.c");
    let program = directory.path().join("ask");
    std::fs::write(&source, GETADDRINFO).unwrap();
    let compiled = Command::new("musl-gcc")
        .args(["-static", "-O1", "-o"])
        .args([&program, &source])
        .output();
    let compiled = compiled.expect("musl-gcc(1) starts: Debian package musl-tools");
    assert!(compiled.status.success(), "{compiled:?}");
    let (v4, v6) = pair(&stage);
    let into = stage.path("/run/ask");
    std::fs::create_dir(&into).unwrap();
    std::fs::copy(&program, into.join("ask")).unwrap();
    let said = stage.ok(
        "run --rm --network one -v /run/ask:/mnt /mnt/ask web www.one WEB.tombolo.internal nobody",
    );
    for name in ["web", "www.one", "WEB.tombolo.internal"] {
        for address in [&v4, &v6] {
            let line = format!("{name} {address} web.one");
            assert!(said.lines().any(|l| l == line), "no `{line}` in {said}");
        }
    }
    assert!(said.contains("nobody: Name does not resolve"), "{said}");
    assert_eq!(
        recorder
            .asked()
            .iter()
            .find(|name| !name.starts_with("nobody.")),
        None
    );
    let said = stage.ok("run --rm --network one -v /run/ask:/mnt /mnt/ask www.example.com");
    assert!(said.contains(&RECORDED.to_string()), "{said}");
}

#[test]
fn sandboxes_ping_each_other_by_name() {
    let Some(stage) = Stage::start() else { return };
    pair(&stage);
    for words in ["-4 web", "-6 web", "-4 www.one", "-6 web.tombolo.internal"] {
        let ping = format!("ping -q -c 1 -W 5 {words}");
        let said = tries_inside(&stage, "client", &ping);
        assert!(said.success(), "{said:?}");
    }
    // And at its own name, which its hosts file has.
    inside(&stage, "client", "ping -q -c 1 -W 5 client");
}

#[test]
fn no_question_for_a_name_of_one_word_leaves() {
    let Some((stage, recorder)) = recorded("search corp.example\noptions timeout:2\n", &[]) else {
        return;
    };
    let (v4, _) = pair(&stage);
    idle(
        &stage,
        "searching",
        "--network one --dns-search own.example --dns-search other.example",
    );
    for client in ["client", "searching"] {
        for name in ["web", "www", "web.one", "web.one.tombolo.internal"] {
            let said = inside(&stage, client, &format!("getent ahostsv4 {name}"));
            assert!(said.contains(&v4), "{said}");
        }
    }
    assert_eq!(recorder.asked(), [""; 0]);
    // One that nobody has is looked for in the search domains only.
    for (client, domain) in [("client", "corp.example"), ("searching", "own.example")] {
        let said = inside(&stage, client, "getent ahostsv4 printer");
        assert!(said.contains(&RECORDED.to_string()), "{said}");
        assert!(recorder.asked().contains(&format!("printer.{domain}")));
    }
    // Without any it is looked for nowhere.
    let before = recorder.asked();
    let lonely = stage.tries("run --rm --network one --dns-search . getent ahostsv4 printer");
    assert_eq!(lonely.code, Some(2), "{lonely:?}");
    for kind in ["A", "AAAA", "HTTPS"] {
        let dig = format!("dig +short printer {kind}");
        assert_eq!(inside(&stage, "client", &dig), "");
    }
    assert_eq!(recorder.asked(), before);
    assert!(
        before.iter().all(|name| name.contains('.')),
        "asked at {FAR_V4}: {before:?}"
    );
}

#[test]
fn a_host_that_wants_it_sends_names_of_one_word_on() {
    let flags = ["--dns-forward-single-labels=true"];
    let Some((stage, recorder)) = recorded("", &flags) else {
        return;
    };
    pair(&stage);
    let said = inside(&stage, "client", "getent ahostsv4 printer");
    assert!(said.contains(&RECORDED.to_string()), "{said}");
    assert!(recorder.asked().contains(&"printer".to_owned()));
    inside(&stage, "client", "getent ahosts web");
    assert!(!recorder.asked().contains(&"web".to_owned()));
}

//! What the host itself can ask.

use std::net::SocketAddr;

use tombolo_lab::node::Outcome;
use tombolo_tests::Stage;

use crate::scene::{ask_port, recorded};

/// `dns resolve` with these words: its exit code, and what it prints.
fn resolve(stage: &Stage, words: &str) -> (i32, String) {
    let Outcome { code, stdout, .. } = stage.tries(&format!("dns resolve {words}"));
    (code.unwrap(), stdout)
}

#[test]
fn dns_resolve_answers_as_the_sandbox_would_hear_it_and_its_exit_code_tells() {
    let Some((stage, recorder)) = recorded("", &[]) else {
        return;
    };
    stage.ok("network create one --ipv6");
    stage.ok("network create two");
    stage.ok("network create inner --internal");
    let web = stage.sandbox("web", "--network one --network-alias www --expose 80");
    stage.ok("sandbox create --name asker --network one --link web:store");
    stage.ok("sandbox create --name other --network two");
    stage.ok("sandbox create --name closed --network inner");
    stage.ok("sandbox create --name stopped --network one");
    stage.ok("sandbox stop stopped");
    let (v4, v6) = (web.v4().to_string(), web.v6().to_string());
    for (words, code, said) in [
        ("web", 0, v4.as_str()),
        ("WWW.one.tombolo.internal.", 0, &v4),
        ("--type AAAA web", 0, &v6),
        ("--type aaaa web.one", 0, &v6),
        ("--type SRV _http._tcp.web", 0, "web.one."),
        ("--from asker store", 0, &v4),
        (&format!("--from asker {v4}"), 0, "web.one."),
        (&format!("--from asker {v6}"), 0, "web.one."),
        (&v4, 0, "web.one."),
        ("other", 0, "other"),
        ("--type TXT web", 5, ""),
        ("nobody", 5, ""),
        ("store", 5, ""),
        ("stopped", 5, ""),
        ("--from other web", 5, ""),
        ("--from asker other", 5, ""),
        ("--from asker www.example.com", 0, "203.0.113.80"),
        ("--from asker --type TXT www.example.com", 5, ""),
        ("www.example.com", 3, ""),
        ("--from closed www.example.com", 3, ""),
        ("--from nobody web", 5, ""),
        ("--type NONSENSE web", 2, ""),
        ("a..b", 2, ""),
        (&"a".repeat(64), 2, ""),
    ] {
        let (ended, printed) = resolve(&stage, words);
        assert_eq!(ended, code, "{words}: {printed}");
        assert!(printed.contains(said), "{words}: {printed}");
        assert_eq!(printed.is_empty(), said.is_empty(), "{words}: {printed}");
    }
    // Somebody who does not ask is not said to have been answered.
    let stopped = stage.tries("dns resolve --from stopped web");
    assert!(!stopped.success(), "{stopped:?}");
    assert_eq!(recorder.asked(), ["www.example.com", "www.example.com"]);
    drop(recorder);
    let (ended, printed) = resolve(&stage, "--from asker gone.example.com");
    assert_eq!((ended, printed.as_str()), (4, ""));
    let json = stage.ok("dns resolve --json web");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["records"][0]["data"], v4, "{json}");
    assert_eq!(json["code"], "NOERROR", "{json}");
}

#[test]
fn dns_ls_shows_the_names_of_what_runs() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    stage.ok("network create two");
    let web = stage.sandbox("web", "--hostname front --network one --network-alias www");
    stage.ok("network connect two web --alias api");
    stage.ok("sandbox create --name db --network two");
    let listed = stage.ok("dns ls");
    let line = |network: &str, name: &str| {
        let mut lines = listed.lines();
        let words = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words[0] == network && words[1] == name
        };
        lines.find(words).unwrap_or_default().to_owned()
    };
    let on_one = line("one", "web");
    for word in ["www", "front", &web.v4().to_string(), &web.v6().to_string()] {
        assert!(on_one.contains(word), "{word}: {listed}");
    }
    assert!(!on_one.contains("api"), "{listed}");
    assert!(line("two", "web").contains("api"), "{listed}");
    assert!(!line("two", "db").is_empty(), "{listed}");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert_eq!(stage.ok("dns ls --network one").lines().count(), 2);
    stage.ok("sandbox stop web");
    assert_eq!(stage.ok("dns ls").lines().count(), 2);
    assert_eq!(stage.tries("dns ls --network nobody").code, Some(5));
    let json: serde_json::Value = serde_json::from_str(&stage.ok("dns ls --json")).unwrap();
    assert_eq!(json[0]["sandbox"]["name"], "db", "{json}");
}

#[test]
fn at_an_address_of_the_configuration_the_host_finds_the_names_of_all_networks() {
    let flags = ["--dns-listen=127.0.0.54:5300", "--dns-listen=[::1]:5300"];
    let Some((mut stage, recorder)) = recorded("", &flags) else {
        return;
    };
    stage.ok("network create one --ipv6");
    stage.ok("network create two --internal");
    let web = stage.sandbox("web", "--network one --network-alias www --expose 80");
    let db = stage.sandbox("db", "--network two --network-alias www");
    let here = stage.here();
    for server in ["127.0.0.54:5300", "[::1]:5300"] {
        let server: SocketAddr = server.parse().unwrap();
        let answers = |words: &str| ask_port(&here, server, words).data();
        for carrier in ["+notcp", "+tcp"] {
            let answers = |words: &str| answers(&format!("{carrier} {words}"));
            assert_eq!(answers("web A"), [web.v4().to_string()]);
            assert_eq!(
                answers("web.one.tombolo.internal AAAA"),
                [web.v6().to_string()]
            );
            assert_eq!(answers("db A"), [db.v4().to_string()]);
            // Of one that two networks have, the first by its name.
            assert_eq!(answers("www A"), [web.v4().to_string()]);
            assert_eq!(answers("www.two A"), [db.v4().to_string()]);
            assert_eq!(answers(&format!("-x {}", db.v4())), ["db.two."]);
            assert_eq!(answers("_http._tcp.web SRV"), ["0 0 80 web.one."]);
            for foreign in ["www.example.com A", "-x 203.0.113.9", "com NS"] {
                let reply = ask_port(&here, server, &format!("{carrier} {foreign}"));
                assert_eq!(reply.status, "REFUSED", "{}", reply.text);
            }
            let reply = ask_port(&here, server, &format!("{carrier} nobody A"));
            assert!(reply.is_missing(), "{}", reply.text);
        }
    }
    assert_eq!(recorder.asked(), [""; 0]);
    stage.stop().unwrap();
    stage.start_with(&flags, &[]).unwrap();
    let server: SocketAddr = "127.0.0.54:5300".parse().unwrap();
    let reply = ask_port(&here, server, "web A");
    assert_eq!(reply.data(), [web.v4().to_string()], "{}", reply.text);
    // Where somebody else listens already it goes on without, and says so.
    stage.stop().unwrap();
    let taken = here.inside(|| std::net::UdpSocket::bind("127.0.0.54:5300").unwrap());
    stage.start_with(&flags, &[]).unwrap();
    let said = "names cannot be asked for at 127.0.0.54:5300";
    assert!(stage.log().contains(said), "{}", stage.log());
    let reply = ask_port(&here, "[::1]:5300".parse().unwrap(), "web A");
    assert_eq!(reply.data(), [web.v4().to_string()], "{}", reply.text);
    drop(taken);
}

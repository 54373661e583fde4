//! The files of a sandbox: what they say, where each line comes from, and how they follow what changes.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use tombolo_lab::node::{FAR_V4, FAR_V6, wait_until};
use tombolo_tests::Stage;

use crate::scene::{
    RECORDED, Recorder, ask, assert_soon, file, file_path, idle, inside, ip, recorded,
    set_resolv_conf, with_resolv_conf,
};

/// How soon a change of the host's settings is followed.
const SOON: Duration = Duration::from_secs(2);
/// The least that a machine at its limits is given more.
const SPARE: Duration = Duration::from_secs(1);

/// Lines of a resolv.conf, each with the comment that it stands under.
fn origins(text: &str) -> Vec<(String, String)> {
    let (mut lines, mut comment) = (Vec::new(), String::new());
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(said) if comment.is_empty() => said.clone_into(&mut comment),
            Some(_) => {}
            None if line.is_empty() => comment.clear(),
            None => lines.push((line.to_owned(), comment.clone())),
        }
    }
    lines
}

/// What a resolv.conf says under a keyword, and where that is said to come from.
fn said(text: &str, keyword: &str) -> (String, String) {
    let mut found = origins(text)
        .into_iter()
        .filter(|(line, _)| line.starts_with(keyword));
    let Some((line, comment)) = found.next() else {
        return Default::default();
    };
    let line = line[keyword.len()..].trim().to_owned();
    let from = comment.split_once(": ").map_or("", |(_, from)| from);
    (line, from.to_owned())
}

/// The servers that a resolv.conf says questions are sent on to, and from where.
fn forwards(text: &str) -> Vec<String> {
    let lines = text.lines();
    let lines = lines.filter_map(|line| line.strip_prefix("# Forwards to: "));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn assert_said(text: &str, keyword: &str, line: &str, from: &str) {
    assert_eq!(
        said(text, keyword),
        (line.to_owned(), from.to_owned()),
        "{text}"
    );
}

#[test]
fn each_line_of_resolv_conf_is_the_first_ones_who_says_it_and_tells_whose() {
    let host = "nameserver 192.0.2.1\nsearch host.example\noptions attempts:5\n";
    let daemon = [
        "--dns=192.0.2.9",
        "--dns-search=daemon.example",
        "--dns-option=attempts:4",
    ];
    let Some(stage) = with_resolv_conf(host, &daemon) else {
        return;
    };
    stage.ok("network create plain");
    stage.ok("network create one --dns 192.0.2.11 --dns-search one.example");
    stage
        .ok("network create two --dns 192.0.2.12 --dns-search two.example --dns-option attempts:2");
    let resolver = "the resolver for the names of its networks.";
    let text = |name: &str, words: &str| {
        stage.ok(&format!("sandbox create --name {name} {words}"));
        let text = file(&stage, name, "resolv.conf");
        assert_said(&text, "nameserver", "127.0.0.11", resolver);
        text
    };
    let all = text("a", "--network plain");
    assert_said(
        &all,
        "search",
        "daemon.example",
        "from the daemon's configuration.",
    );
    assert_said(
        &all,
        "options",
        "attempts:4 ndots:0",
        "from the daemon's configuration.",
    );
    assert_eq!(forwards(&all), ["192.0.2.9, from the host's network."]);
    let all = text("b", "--network plain --network one --network two");
    assert_said(&all, "search", "one.example", "asked for network one.");
    assert_said(
        &all,
        "options",
        "attempts:2 ndots:0",
        "asked for network two.",
    );
    assert_eq!(forwards(&all), ["192.0.2.11, from this network."]);
    let all = text(
        "c",
        "--network two --network one --dns-search . --dns-option ndots:3",
    );
    assert_said(&all, "search", "", "");
    assert!(
        all.contains("# Search domains: none, asked for this sandbox.\n"),
        "{all}"
    );
    assert_said(&all, "options", "ndots:3", "asked for this sandbox.");
    assert_eq!(forwards(&all), ["192.0.2.12, from this network."]);
    let own = "--dns 192.0.2.21 --dns 192.0.2.22 --dns-search own.example";
    let all = text("d", &format!("--network one {own}"));
    assert_said(&all, "search", "own.example", "asked for this sandbox.");
    let both = [
        "192.0.2.21, from this network.",
        "192.0.2.22, from this network.",
    ];
    assert_eq!(forwards(&all), both);
    // As its networks change, so does who says it.
    stage.ok("network disconnect one b");
    let all = file(&stage, "b", "resolv.conf");
    assert_said(&all, "search", "two.example", "asked for network two.");
    assert_eq!(forwards(&all), ["192.0.2.12, from this network."]);
}

#[test]
fn without_other_wishes_the_hosts_settings_hold() {
    let host = "nameserver 192.0.2.1\nnameserver 2001:db8::53\nsearch host.example lab.example\noptions rotate\n";
    let Some(stage) = with_resolv_conf(host, &[]) else {
        return;
    };
    stage.ok("network create n");
    stage.ok("network create o --resolver off");
    stage.ok("network create six --ipv6 --resolver off");
    stage.ok("sandbox create --name a --network n");
    let text = file(&stage, "a", "resolv.conf");
    assert_said(
        &text,
        "search",
        "host.example lab.example",
        "from the host.",
    );
    assert_said(&text, "options", "rotate ndots:0", "from the host.");
    let both = [
        "192.0.2.1, from the host's network.",
        "2001:db8::53, from the host's network.",
    ];
    assert_eq!(forwards(&text), both);
    // Without a resolver of ours the servers are listed themselves, as far as they can be asked.
    stage.ok("sandbox create --name b --network o");
    let text = file(&stage, "b", "resolv.conf");
    assert_said(&text, "nameserver", "192.0.2.1", "from the host.");
    assert!(
        text.contains("# Left out: 2001:db8::53, there is no IPv6 here.\n"),
        "{text}"
    );
    assert_said(&text, "options", "rotate", "from the host.");
    assert_eq!(text.matches("\nnameserver").count(), 1, "{text}");
    stage.ok("sandbox create --name c --network six");
    let text = file(&stage, "c", "resolv.conf");
    assert_eq!(text.matches("\nnameserver").count(), 2, "{text}");
    assert_eq!(stage.place("c").ok("ss -Hlntu"), "");
}

#[test]
fn the_hosts_file_tells_where_its_lines_come_from() {
    let Some(stage) = Stage::start_with(&["--dns-domain=corp.example"]) else {
        return;
    };
    stage.ok("network create n --ipv6");
    let db = stage.sandbox("db", "--network n --hostname store --expose 80");
    let web = stage.sandbox(
        "web",
        "--network n --hostname front --link db:data --add-host printer:192.0.2.77 --add-host up:host-gateway",
    );
    let text = file(&stage, "web", "hosts");
    let mut parts = text.split("\n# ");
    assert!(
        parts.next().unwrap().starts_with("# Made by tombolo."),
        "{text}"
    );
    let parts: Vec<(&str, Vec<&str>)> = parts
        .map(|part| {
            let (title, lines) = part.split_once('\n').unwrap();
            (
                title,
                lines.lines().filter(|line| !line.is_empty()).collect(),
            )
        })
        .collect();
    let titles: Vec<&str> = parts.iter().map(|(title, _)| *title).collect();
    assert_eq!(
        titles,
        [
            "Loopback.",
            "This sandbox.",
            "Asked for this sandbox.",
            "Linked sandboxes."
        ],
        "{text}"
    );
    let own = |address: std::net::IpAddr| format!("{address}\tfront.corp.example front web");
    assert_eq!(parts[1].1, [own(web.v4()), own(web.v6())], "{text}");
    let gateways = [stage.gateway("n", false), stage.gateway("n", true)];
    let mut asked = vec!["192.0.2.77\tprinter".to_owned()];
    asked.extend(gateways.map(|gateway| format!("{gateway}\tup")));
    assert_eq!(parts[2].1, asked, "{text}");
    let linked = |address: std::net::IpAddr| format!("{address}\tdata store db");
    assert_eq!(parts[3].1, [linked(db.v4()), linked(db.v6())], "{text}");
}

#[test]
fn files_are_rewritten_in_place_and_an_edited_one_is_left_alone() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create n");
    stage.ok("network create m --dns-search m.example");
    idle(&stage, "web", "--network n");
    let names = ["hosts", "hostname", "resolv.conf"];
    let inode = |name: &str| {
        std::fs::metadata(file_path(&stage, "web", name))
            .unwrap()
            .ino()
    };
    let before = names.map(inode);
    stage.ok("network connect m web");
    let m = stage.place("web").addresses[1];
    // The program sees what is written, since it is the same file.
    let hosts = inside(&stage, "web", "cat /etc/hosts");
    assert!(hosts.contains(&m.to_string()), "{hosts}");
    let conf = inside(&stage, "web", "cat /etc/resolv.conf");
    assert!(conf.contains("search m.example"), "{conf}");
    assert_eq!(names.map(inode), before);
    inside(
        &stage,
        "web",
        "echo 'nameserver 192.0.2.99' >/etc/resolv.conf",
    );
    inside(&stage, "web", "echo '192.0.2.98 mine' >>/etc/hosts");
    let edited = file(&stage, "web", "hosts");
    let unmoved = |stage: &Stage| {
        assert_eq!(file(stage, "web", "resolv.conf"), "nameserver 192.0.2.99\n");
        assert_eq!(file(stage, "web", "hosts"), edited);
    };
    stage.ok("network disconnect m web");
    unmoved(&stage);
    stage.stop().unwrap();
    stage.start_again();
    stage.ok("network connect m web");
    unmoved(&stage);
    stage.kill().unwrap();
    stage.start_again();
    stage.ok("network disconnect m web");
    unmoved(&stage);
    // What a person cleared is a person's, too.
    inside(&stage, "web", ": >/etc/hosts");
    stage.ok("network connect m web");
    assert_eq!(file(&stage, "web", "hosts"), "");
    // The resolver is there all the same for who asks it.
    let web = stage.place("web");
    assert_eq!(ask(&web, "web A").data(), [web.v4().to_string()]);
}

#[test]
fn a_change_of_the_hosts_settings_is_followed_by_files_and_by_what_is_asked() {
    let Some((stage, recorder)) = recorded("search first.example\n", &[]) else {
        return;
    };
    stage.ok("network create n --ipv6");
    stage.ok("network create o --resolver off");
    idle(&stage, "web", "--network n");
    idle(&stage, "plain", "--network o");
    idle(&stage, "edited", "--network n");
    inside(
        &stage,
        "edited",
        "echo 'search mine.example' >/etc/resolv.conf",
    );
    let web = stage.place("web");
    let ask_for = |name: &str| ask(&web, &format!("{name} A")).data();
    assert_eq!(ask_for("before.example.com"), [RECORDED.to_string()]);
    let second = Recorder::start(&stage.far(), ip(FAR_V6));
    let begun = Instant::now();
    set_resolv_conf(
        &stage,
        &format!("nameserver {FAR_V6}\nsearch second.example\n"),
    );
    let followed = || {
        let text = file(&stage, "web", "resolv.conf");
        let plain = file(&stage, "plain", "resolv.conf");
        text.contains("search second.example") && plain.contains("search second.example")
    };
    assert!(wait_until(SOON + SPARE, followed), "{:?}", begun.elapsed());
    let text = inside(&stage, "web", "cat /etc/resolv.conf");
    assert_eq!(
        forwards(&text),
        [format!("{FAR_V6}, from the host's network.")]
    );
    assert_eq!(ask_for("after.example.com"), [RECORDED.to_string()]);
    assert_eq!(second.asked(), ["after.example.com"]);
    assert_eq!(recorder.asked(), ["before.example.com"]);
    assert_eq!(
        file(&stage, "edited", "resolv.conf"),
        "search mine.example\n"
    );
    // As network daemons do it: another file in its place.
    stage.shell(&format!(
        "echo 'nameserver {FAR_V4}' >/run/other.conf && mount --bind /run/other.conf /etc/resolv.conf"
    ));
    assert_soon("another file is followed", || {
        !file(&stage, "web", "resolv.conf").contains("search")
    });
    assert_eq!(ask_for("third.example.com"), [RECORDED.to_string()]);
    assert_eq!(second.asked(), ["after.example.com"]);
    // A host without servers is not one without names.
    stage.shell(": >/run/other.conf");
    assert_soon("an empty file is followed", || {
        forwards(&file(&stage, "web", "resolv.conf")).is_empty()
    });
    assert_eq!(ask_for("web"), [web.v4().to_string()]);
    assert_eq!(ask(&web, "fourth.example.com A").status, "SERVFAIL");
}

#[test]
fn behind_a_stub_on_the_hosts_loopback_are_the_servers_that_it_asks() {
    let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
    let Some(stage) = with_resolv_conf(stub, &[]) else {
        return;
    };
    stage.ok("network create n");
    stage.ok("network create o --resolver off");
    // Without a file of the real ones the stub itself is asked, where it is.
    let local = Recorder::start(&stage.here(), ip("127.0.0.53"));
    let web = stage.sandbox("web", "--network n");
    assert_eq!(ask(&web, "a.example.com A").data(), [RECORDED.to_string()]);
    assert_eq!(local.asked(), ["a.example.com"]);
    stage.ok("sandbox create --name plain --network o");
    let text = file(&stage, "plain", "resolv.conf");
    assert!(!text.contains("\nnameserver"), "{text}");
    assert!(
        text.contains("# Left out: 127.0.0.53, on the host's loopback.\n"),
        "{text}"
    );
    let real = Recorder::start(&stage.far(), ip(FAR_V4));
    stage.shell(&format!(
        "mkdir -p /run/systemd/resolve \
         && echo 'nameserver {FAR_V4}' >/run/systemd/resolve/resolv.conf"
    ));
    assert_soon("the real file is found", || {
        forwards(&file(&stage, "web", "resolv.conf"))
            == [format!("{FAR_V4}, from the host's network.")]
    });
    assert_soon("both are told", || {
        file(&stage, "plain", "resolv.conf").contains(&format!("\nnameserver {FAR_V4}\n"))
    });
    assert_eq!(ask(&web, "b.example.com A").data(), [RECORDED.to_string()]);
    assert_eq!(real.asked(), ["b.example.com"]);
    assert_eq!(local.asked(), ["a.example.com"]);
}

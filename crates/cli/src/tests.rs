//! The command line as a whole: its forms, its reference, and that nothing makes it panic.

use std::ffi::OsString;

use clap::CommandFactory;
use proptest::prelude::*;

use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["tombolo"].iter().chain(words))
}

#[test]
fn the_commands_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn docker_forms_are_understood() {
    let forms = [
        "run true",
        "run -dit --rm --name web -h host --net bridge true",
        "run --network name=a,ip=10.0.0.2 --network b -v /a:/b:ro -e A=1 -e B sh -c 'x --y'",
        "run -it --cap-add NET_ADMIN --cap-drop=ALL --privileged --init sh -x --rm",
        "run -u 1:2 -w /tmp --env-file f --sysctl net.ipv4.ip_forward=1 --add-host a:10.0.0.1 true",
        "run --dns 10.0.0.1 --dns-search x --dns-opt ndots:1 --dns-option y -l a -l b=c true",
        "run --net-alias x --network-alias y --ip 10.0.0.2 --ip6 ::2 --mac-address 02::1 true",
        "run -p 80 -p 127.0.0.1:8080:80/udp -P --expose 53/udp --link db:store --link=x true",
        "run --publish target=80,published=8080 -p=[::1]::80 -p unix:/run/a:80 true",
        "port web",
        "port web 80/tcp",
        "publish add web 80 81:81,from=10.0.0.1",
        "publish rm web 80 8080->80/tcp",
        "publish ls --json",
        "publish list web",
        "network create --dns 10.0.0.1 --dns ::1 --dns-search x --dns-opt ndots:1 --dns-option y x",
        "network create --resolver gateway --dns-forward never --mdns x",
        "dns ls --network a --json",
        "dns list",
        "dns resolve --type AAAA --from web db",
        "dns resolve -t SRV _a._b.c --json",
        "docker install --spec --root /x",
        "docker install --uninstall --force",
        "docker plugin /x",
        "network create --gateway-mode-ipv4 routed --obey-host-firewall x",
        "exec -it -e A=1 -u root -w / web sh -c x",
        "exec -d web sleep 1",
        "ps -aq",
        "ps -a --json",
        "logs -f --tail 10 --since 10m -t web",
        "logs -n all web",
        "stop -t 3 a b",
        "restart a",
        "kill -s HUP a",
        "rm -f a b",
        "wait a",
        "network ls -q",
        "network create --ipv6 x",
        "network create --ipv6=false x",
        "network connect --gw-priority -1 a b",
        "network rm a b",
        "-H tcp://127.0.0.1:1 ps",
    ];
    for form in forms {
        let words: Vec<&str> = form.split_whitespace().collect();
        if let Err(error) = parse(&words) {
            panic!("{form}: {error}");
        }
    }
}

#[test]
fn mistakes_are_refused() {
    let forms = [
        "",
        "run",
        "run --bogus true",
        "run --network name=a,colour=red true",
        "run --ip 10.0.0 true",
        "run --ip6 10.0.0.1 true",
        "run -v a:/b true",
        "run --add-host x true",
        "run --sysctl x true",
        "run -p 0 true",
        "run -p 80:80:80:80 true",
        "run --expose 8080:80 true",
        "run --link a:b:c true",
        "publish add web",
        "publish rm web",
        "port",
        "port web x",
        "network create --host-binding x x",
        "network create --dns x x",
        "network create --resolver somewhere x",
        "network create --dns-forward perhaps x",
        "network create --mdns perhaps x",
        "dns",
        "dns resolve",
        "docker install --spec --json",
        "docker install --uninstall --spec",
        "docker plugin",
        "exec web",
        "kill -s NOPE a",
        "logs --tail some a",
        "logs --since then a",
        "stop",
        "network create",
        "network create --ipv6 maybe x",
        "network create --subnet 10.0.0.1.2/8 x",
        "network create --route 10.0.0.0 x",
        "network create --aux-address 10.0.0.1 x",
        "network ls -q --json",
        "sandbox create --host --pid 1",
        "nonsense",
    ];
    for form in forms {
        let words: Vec<&str> = form.split_whitespace().collect();
        assert!(parse(&words).is_err(), "{form}");
    }
}

#[test]
fn words_after_the_program_are_its_own() {
    let cli = parse(&[
        "run", "--rm", "sh", "-c", "echo", "--rm", "--", "-h", "--help",
    ])
    .unwrap();
    let args::Command::Run(args) = cli.command else {
        panic!("it is a run")
    };
    assert_eq!(
        args.command(),
        ["sh", "-c", "echo", "--rm", "--", "-h", "--help"]
    );
}

fn outcome(words: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = execute(words.iter().map(OsString::from), &mut out, &mut err);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

#[test]
fn help_and_usage_errors_have_their_streams_and_codes() {
    let (code, out, err) = outcome(&["tombolo", "run", "--help"]);
    assert!(
        code == 0 && out.contains("--network") && err.is_empty(),
        "{out}{err}"
    );
    let (code, out, err) = outcome(&["tombolo", "network", "create"]);
    assert!(
        code == 2 && out.is_empty() && err.contains("NAME"),
        "{out}{err}"
    );
    assert_eq!(outcome(&["tombolo", "run", "--bogus"]).0, 125);
    assert_eq!(outcome(&["tombolo", "--no-autostart", "exec"]).0, 125);
}

#[test]
fn contradictions_are_refused_before_the_daemon_is_asked() {
    let forms = [
        (
            "run --network host --ip 10.0.0.2 true",
            "--ip cannot be combined with --network host",
        ),
        (
            "run --network none --network a true",
            "--network none cannot be combined",
        ),
        (
            "run --network container:a --network b true",
            "--network container:a cannot be combined",
        ),
        (
            "run --network container:a -h x true",
            "--hostname cannot be combined",
        ),
        (
            "run --network container:a --dns 10.0.0.1 true",
            "--dns cannot be combined",
        ),
        (
            "run --network container:a --add-host a:10.0.0.1 true",
            "--add-host cannot be combined",
        ),
        (
            "run --network container:a --ip 10.0.0.1 true",
            "--ip cannot be combined",
        ),
        (
            "run --network host --sysctl net.ipv4.ip_forward=1 true",
            "--sysctl cannot be combined",
        ),
        (
            "run --sysctl kernel.panic=1 true",
            "sysctl \"kernel.panic\" is not below net.",
        ),
        ("run --cap-add NONSENSE true", "unknown capability"),
        (
            "run -w relative true",
            "working directory \"relative\" must be an absolute path",
        ),
        (
            "run --env-file /no/such/file true",
            "cannot read environment file /no/such/file",
        ),
        (
            "run --rootfs /no/such/dir true",
            "cannot use /no/such/dir as a directory",
        ),
        (
            "run -v /no/such/dir:/x true",
            "cannot use host path /no/such/dir of a volume",
        ),
    ];
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().display().to_string();
    for (form, expected) in forms {
        let words = ["tombolo", "--run-dir", &dir, "--no-autostart"];
        let words: Vec<&str> = words.into_iter().chain(form.split_whitespace()).collect();
        let (code, out, err) = outcome(&words);
        assert_eq!((code, out.as_str()), (125, ""), "{form}");
        assert!(
            err.starts_with(&format!("tombolo: {expected}")),
            "{form}: {err}"
        );
    }
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn the_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
    let path = std::path::Path::new(path);
    if std::env::var_os("TOMBOLO_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, reference()).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == reference(),
        "docs/reference/cli.md is not what the program says: run this test with TOMBOLO_UPDATE=1"
    );
}

/// Words that lead deep into the commands, and words that nobody expects.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "run",
        "exec",
        "ps",
        "logs",
        "stop",
        "start",
        "rm",
        "kill",
        "wait",
        "inspect",
        "network",
        "create",
        "ls",
        "connect",
        "publish",
        "add",
        "port",
        "-p",
        "8080:80,from=::/0",
        "--link",
        "endpoint",
        "sandbox",
        "plan",
        "explain",
        "topology",
        "system",
        "prune",
        "--network",
        "--net=container:a",
        "--ip",
        "10.0.0.2",
        "-v",
        "/a:/b",
        "-e",
        "A=1",
        "--subnet",
        "10.0.0.0/8",
        "--ip-range",
        "--gateway",
        "--aux-address",
        "a=10.0.0.1",
        "-f",
        "-q",
        "--json",
        "--filter",
        "name=a",
        "--since",
        "1h",
        "2026-01-01",
        "-t",
        "--",
        "-",
        "a",
        "--ipv6=",
        "--route",
        "10.0.0.0/8,10.0.0.1",
        "sandbox-exited",
        "version",
        "info",
        "",
        "--help",
        "name=a,ip=::1",
        "99999999999999999999",
        "-s",
        "--sysctl",
        "net.a=1",
    ];
    prop_oneof![3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_words_make_it_panic(words in prop::collection::vec(word(), 0..8)) {
        let temp = tempfile::tempdir().unwrap();
        let fixed = ["tombolo", "--no-autostart", "--run-dir"].map(OsString::from).into_iter();
        let words = words.into_iter().map(OsString::from);
        let address = format!("unix://{}/nobody.sock", temp.path().display());
        let place = [temp.path().as_os_str().to_owned(), "--host".into(), address.into()];
        execute(fixed.chain(place).chain(words), &mut Vec::new(), &mut Vec::new());
    }
}

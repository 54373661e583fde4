use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;

/// Places of which the directories exist.
struct Fixture {
    root: TempDir,
    places: Places,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let places = Places {
            sockets: at("sockets"),
            files: vec![at("etc"), at("lib")],
        };
        for directory in ["sockets/nested", "etc/nested", "lib"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        Self { root, places }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(file)
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(file), text).unwrap();
    }

    /// What is found of `plugin` when `etc/plugin.json` holds `text`.
    fn json(&self, text: &str) -> Result<Address, FindError> {
        self.write("etc/plugin.json", text);
        self.places.find("plugin")
    }

    fn spec(&self, text: &str) -> Result<Address, FindError> {
        self.write("etc/plugin.spec", text);
        self.places.find("plugin")
    }
}

fn tcp(host: &str, port: u16) -> Address {
    let host = host.to_owned();
    Address::Tcp { host, port }
}

fn tls(authority: Option<&str>, identity: Option<(&str, &str)>) -> Tls {
    Tls {
        authority: authority.map(PathBuf::from),
        identity: identity.map(|(certificate, key)| (certificate.into(), key.into())),
    }
}

#[test]
fn the_places_are_those_of_docker() {
    let places = Places::default();
    assert_eq!(places.sockets, Path::new("/run/docker/plugins"));
    let files = ["/etc/docker/plugins", "/usr/lib/docker/plugins"];
    assert_eq!(places.files, files.map(PathBuf::from));
}

#[test]
fn a_socket_comes_before_files() {
    let fixture = Fixture::new();
    fixture.write("etc/plugin.spec", "tcp://localhost:1");
    let _listener = UnixListener::bind(fixture.path("sockets/plugin.sock")).unwrap();
    let found = fixture.places.find("plugin").unwrap();
    assert_eq!(found, Address::Unix(fixture.path("sockets/plugin.sock")));
    let shown = format!("unix://{}", fixture.path("sockets/plugin.sock").display());
    assert_eq!(found.to_string(), shown);
    let _listener = UnixListener::bind(fixture.path("sockets/nested/nested.sock")).unwrap();
    let nested = fixture.path("sockets/nested/nested.sock");
    assert_eq!(
        fixture.places.find("nested").unwrap(),
        Address::Unix(nested)
    );
}

#[test]
fn what_is_no_socket_is_passed_over() {
    let fixture = Fixture::new();
    fixture.write("sockets/plugin.sock", "");
    fixture.write("sockets/plugin", "a file in the place of a directory");
    fs::create_dir(fixture.path("etc/plugin.spec")).unwrap();
    fixture.write("lib/plugin.spec", "tcp://localhost:1\n");
    assert_eq!(fixture.places.find("plugin").unwrap(), tcp("localhost", 1));
}

#[test]
fn files_have_the_order_of_docker() {
    let fixture = Fixture::new();
    let find = || fixture.places.find("nested").unwrap();
    fixture.write("lib/nested.json", r#"{"Addr":"tcp://h:6"}"#);
    assert_eq!(find(), tcp("h", 6));
    fixture.write("lib/nested.spec", "tcp://h:5");
    assert_eq!(find(), tcp("h", 5));
    fixture.write("etc/nested/nested.json", r#"{"Addr":"tcp://h:4"}"#);
    assert_eq!(find(), tcp("h", 4));
    fixture.write("etc/nested.json", r#"{"Addr":"tcp://h:3"}"#);
    assert_eq!(find(), tcp("h", 3));
    fixture.write("etc/nested/nested.spec", "tcp://h:2");
    assert_eq!(find(), tcp("h", 2));
    fixture.write("etc/nested.spec", "tcp://h:1");
    assert_eq!(find(), tcp("h", 1));
}

#[test]
fn an_error_says_where_was_looked() {
    let fixture = Fixture::new();
    let error = fixture.places.find("plugin").unwrap_err().to_string();
    for directory in ["sockets", "etc", "lib"] {
        let directory = fixture.path(directory).display().to_string();
        assert!(error.contains(&directory), "{error}");
    }
    let nowhere = Places {
        sockets: fixture.path("none"),
        files: Vec::new(),
    };
    let error = nowhere.find("plugin").unwrap_err();
    assert!(matches!(error, FindError::NotFound { .. }), "{error:?}");
}

#[test]
fn names_are_checked_before_paths_are_made() {
    let fixture = Fixture::new();
    fixture.write("spec.spec", "tcp://localhost:1");
    let long = "n".repeat(PLUGIN_NAME_BYTES_MAX + 1);
    for name in [
        "",
        ".",
        "..",
        "...",
        "../spec",
        "/etc/passwd",
        "a/b",
        "a\0b",
        "a\nb",
        &long,
    ] {
        let error = fixture.places.find(name).unwrap_err();
        assert!(
            matches!(error, FindError::Name { .. }),
            "{name:?}: {error:?}"
        );
    }
    for name in [
        "a",
        ".a",
        "a.b",
        "weavemesh",
        "vendor-net_1",
        "café",
        &long[1..],
    ] {
        let error = fixture.places.find(name).unwrap_err();
        assert!(
            matches!(error, FindError::NotFound { .. }),
            "{name:?}: {error:?}"
        );
    }
}

#[test]
fn a_spec_is_one_address() {
    let fixture = Fixture::new();
    let found = |text: &str| fixture.spec(text).unwrap();
    assert_eq!(
        found("unix:///run/x.sock\n"),
        Address::Unix("/run/x.sock".into())
    );
    assert_eq!(found("  tcp://127.0.0.1:9000  "), tcp("127.0.0.1", 9000));
    assert_eq!(found("tcp://[::1]:9000"), tcp("::1", 9000));
    assert_eq!(
        found("http://plugins.example/path"),
        tcp("plugins.example", 80)
    );
    assert_eq!(found("http://[::1]"), tcp("::1", 80));
    assert_eq!(found("http://[::1]:8080/"), tcp("::1", 8080));
    assert_eq!(tcp("::1", 9).to_string(), "http://[::1]:9");
    for text in [
        "",
        "/run/x.sock",
        "unix://",
        "unix://x.sock",
        "unix:///a\0b",
        "tcp://",
        "tcp://host",
        "tcp://:1",
        "tcp://host:0x1",
        "tcp://host:65536",
        "npipe:////./pipe/x",
        "host:1",
        "tcp://u@h:1",
    ] {
        let error = fixture.spec(text).unwrap_err();
        assert!(
            matches!(error, FindError::Address { .. }),
            "{text:?}: {error:?}"
        );
    }
    let error = fixture.spec("https://host:1").unwrap_err();
    assert!(matches!(error, FindError::NoAuthority { .. }), "{error:?}");
}

#[test]
fn a_definition_may_ask_for_tls() {
    let fixture = Fixture::new();
    let plain = r#"{"Name":"other","Addr":"http://h:1","TLSConfig":null}"#;
    assert_eq!(fixture.json(plain).unwrap(), tcp("h", 1));
    let address = |tls| Address::Tls {
        host: "h".to_owned(),
        port: 443,
        tls,
    };
    let checked = r#"{"Addr":"https://h/p","TLSConfig":{"InsecureSkipVerify":false,"CAFile":"/ca",
        "CertFile":"/cert","KeyFile":"/key"}}"#;
    let expected = address(tls(Some("/ca"), Some(("/cert", "/key"))));
    assert_eq!(fixture.json(checked).unwrap(), expected);
    assert_eq!(expected.to_string(), "https://h:443");
    let nameless = r#"{"Addr":"tcp://h:443","TLSConfig":{"CAFile":"/ca","CertFile":""}}"#;
    assert_eq!(
        fixture.json(nameless).unwrap(),
        address(tls(Some("/ca"), None))
    );
    let anyone = r#"{"Addr":"https://h","TLSConfig":{"InsecureSkipVerify":true}}"#;
    assert_eq!(fixture.json(anyone).unwrap(), address(tls(None, None)));
    let socket = r#"{"Addr":"unix:///x","TLSConfig":{}}"#;
    assert_eq!(fixture.json(socket).unwrap(), Address::Unix("/x".into()));
}

#[test]
fn tls_without_sense_is_refused() {
    let fixture = Fixture::new();
    let error = |tls: &str| {
        let text = format!(r#"{{"Addr":"https://h","TLSConfig":{tls}}}"#);
        fixture.json(&text).unwrap_err()
    };
    assert!(matches!(error("{}"), FindError::NoAuthority { .. }));
    assert!(matches!(error("null"), FindError::NoAuthority { .. }));
    let both = error(r#"{"CAFile":"/ca","InsecureSkipVerify":true}"#);
    assert!(matches!(both, FindError::Contradiction { .. }), "{both:?}");
    for half in ["CertFile", "KeyFile"] {
        let error = error(&format!(r#"{{"CAFile":"/ca","{half}":"/x"}}"#));
        assert!(matches!(error, FindError::HalfIdentity { .. }), "{error:?}");
    }
}

#[test]
fn bad_files_are_refused() {
    let fixture = Fixture::new();
    for text in [
        "",
        "[]",
        r#"{"Addr":1}"#,
        r#"{"Addr":"tcp://h:1","TLSConfig":[]}"#,
    ] {
        let error = fixture.json(text).unwrap_err();
        assert!(
            matches!(error, FindError::Json { .. }),
            "{text:?}: {error:?}"
        );
    }
    let error = fixture.json("{}").unwrap_err();
    assert!(matches!(error, FindError::Address { .. }), "{error:?}");
    fixture.write("etc/plugin.spec", b"tcp://\xff:1");
    let error = fixture.places.find("plugin").unwrap_err();
    assert!(matches!(error, FindError::Read { .. }), "{error:?}");
}

#[test]
fn files_are_read_up_to_their_limit() {
    let fixture = Fixture::new();
    let limit = usize::try_from(PLUGIN_FILE_BYTES_MAX).unwrap();
    let address = "tcp://h:1";
    let text = format!("{address}{}", " ".repeat(limit - address.len()));
    assert_eq!(fixture.spec(&text).unwrap(), tcp("h", 1));
    let error = fixture.spec(&format!("{text} ")).unwrap_err();
    assert!(matches!(error, FindError::TooLong { .. }), "{error:?}");
}

//! What is written for Docker's engine: on a host, and as a managed plugin.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fake::Host;

const CONFIG: &str = "etc/tombolo/tombolo.d/docker.toml";
const ORDER: &str = "etc/systemd/system/docker.service.d/tombolo.conf";
const SERVICE: &str = "etc/systemd/system/tombolo.service";
const SOCKET: &str = "etc/systemd/system/tombolo.socket";
const SPEC: &str = "etc/docker/plugins/tombolo.spec";
const JSON: &str = "etc/docker/plugins/tombolo.json";

/// A directory that stands for the root of a host without a daemon.
struct Root {
    host: Host,
    root: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        Self {
            host: Host::silent(),
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Exit code, standard output without the root, and standard error of `docker install`.
    fn install(&self, flags: &[&str]) -> (i32, String, String) {
        let root = self.root.path().to_str().unwrap();
        let words = ["docker", "install", "--root", root];
        let words: Vec<&str> = words.iter().chain(flags).copied().collect();
        let (code, out, err) = self.host.tombolo(&words);
        (code, out.replace(&format!("{root}/"), "/"), err)
    }

    /// Standard output of an installation that must work.
    fn installed(&self, flags: &[&str]) -> String {
        let (code, out, err) = self.install(flags);
        assert_eq!((code, err.as_str()), (0, ""), "{flags:?}");
        out
    }

    /// Everything below the root: the content of files, nothing for directories.
    fn tree(&self) -> BTreeMap<PathBuf, Option<String>> {
        let mut tree = BTreeMap::new();
        let mut open = vec![self.root.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let text = path.is_file().then(|| fs::read_to_string(&path).unwrap());
                if path.is_dir() {
                    open.push(path.clone());
                }
                tree.insert(path, text);
            }
        }
        tree
    }

    fn files(&self) -> Vec<String> {
        let files = self.tree().into_iter().filter(|(_, text)| text.is_some());
        let name = |path: PathBuf| path.strip_prefix(self.root.path()).unwrap().to_owned();
        files
            .map(|(path, _)| name(path).to_str().unwrap().to_owned())
            .collect()
    }
}

/// What a file says without the line of who wrote it and what else was made.
fn body(text: &str) -> String {
    assert!(
        text.starts_with("# Written by `tombolo docker install`"),
        "{text}"
    );
    let lines = text.lines().skip(1);
    let lines = lines.filter(|line| !line.starts_with("# Directories"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_host_gets_what_its_docker_needs_and_loses_it_again() {
    let root = Root::new();
    root.write("etc/hostname", "x\n");
    root.write("etc/tombolo/tombolo.toml", "mtu = 1400\n");
    let before = root.tree();
    let told = root.installed(&[]);
    assert_eq!(root.files().len(), 6);
    assert_eq!(
        body(&root.read(CONFIG)),
        "[docker]\nplugin-socket = \"/run/docker/plugins/tombolo.sock\"\nengines = [\"/run/docker.sock\"]\n"
    );
    assert_eq!(
        body(&root.read(ORDER)),
        "[Unit]\nWants=tombolo.service\nAfter=tombolo.service\n"
    );
    for (path, shipped) in [
        (
            SERVICE,
            include_str!("../../../../packaging/tombolo.service"),
        ),
        (SOCKET, include_str!("../../../../packaging/tombolo.socket")),
    ] {
        assert_eq!(body(&root.read(path)), shipped);
    }
    for path in [CONFIG, ORDER, SERVICE, SOCKET] {
        assert!(told.contains(&format!("wrote /{path}\n")), "{told}");
    }
    for command in [
        "enable tombolo.socket tombolo.service",
        "docker install --uninstall",
    ] {
        assert!(told.contains(command), "{told}");
    }

    let once = root.tree();
    let again = root.installed(&[]);
    assert_eq!(root.tree(), once);
    assert!(again.ends_with("nothing was changed\n"), "{again}");
    assert_eq!(again.matches("there already /").count(), 4, "{again}");

    let told = root.installed(&["--uninstall"]);
    assert_eq!(root.tree(), before);
    assert!(told.contains(&format!("removed /{CONFIG}\n")), "{told}");
    assert!(
        told.contains("networks and containers are as they were"),
        "{told}"
    );
    assert_eq!(root.installed(&["--uninstall"]), "nothing was changed\n");
}

#[test]
fn a_file_of_somebody_else_is_refused_and_nothing_is_written() {
    for (path, flags) in [
        (CONFIG, &[][..]),
        (ORDER, &["--force"]),
        (SPEC, &["--spec"]),
        (JSON, &["--json"]),
    ] {
        let root = Root::new();
        root.write(path, "unix:///elsewhere.sock\n");
        let before = root.tree();
        let (code, out, err) = root.install(flags);
        assert_eq!((code, out.as_str()), (3, ""), "{path}: {err}");
        assert!(err.contains(path), "{err}");
        assert_eq!(root.tree(), before);
        let told = root.installed(&["--uninstall", "--force"]);
        assert!(
            told.contains(&format!("left alone /{path} (not written by")),
            "{told}"
        );
        assert_eq!(root.tree(), before);
    }
}

#[test]
fn what_was_changed_by_hand_is_left_unless_forced() {
    let root = Root::new();
    root.installed(&[]);
    let changed = root
        .read(CONFIG)
        .replace("/run/docker.sock", "/run/other.sock");
    root.write(CONFIG, &changed);
    let told = root.installed(&[]);
    assert!(
        told.contains(&format!("left alone /{CONFIG} (changed by hand")),
        "{told}"
    );
    assert_eq!(root.read(CONFIG), changed);
    let told = root.installed(&["--uninstall"]);
    assert!(
        told.contains(&format!("left alone /{CONFIG} (changed by hand")),
        "{told}"
    );
    assert_eq!(root.files(), [CONFIG]);
    root.installed(&["--uninstall", "--force"]);
    assert_eq!(root.tree(), BTreeMap::new());

    root.installed(&[]);
    root.write(CONFIG, &changed);
    let told = root.installed(&["--force"]);
    assert!(told.contains(&format!("replaced /{CONFIG}\n")), "{told}");
    assert!(!root.read(CONFIG).contains("/run/other.sock"));
}

#[test]
fn a_file_can_say_where_the_socket_is() {
    let root = Root::new();
    root.installed(&["--spec"]);
    let socket = "plugin-socket = \"/run/tombolo/docker-plugin.sock\"\n";
    assert_eq!(root.read(SPEC), "unix:///run/tombolo/docker-plugin.sock\n");
    assert!(root.read(CONFIG).contains(socket));
    // Another form takes the place of the one before.
    let told = root.installed(&["--json"]);
    assert!(told.contains(&format!("removed /{SPEC}\n")), "{told}");
    let json: serde_json::Value = serde_json::from_str(&root.read(JSON)).unwrap();
    assert_eq!(json["Name"], "tombolo");
    assert_eq!(json["Addr"], "unix:///run/tombolo/docker-plugin.sock");
    assert!(root.read(CONFIG).contains(socket));
    let told = root.installed(&[]);
    assert!(told.contains(&format!("removed /{JSON}\n")), "{told}");
    assert!(!root.path(JSON).exists() && !root.read(CONFIG).contains(socket));
    root.installed(&["--uninstall"]);
    assert_eq!(root.tree(), BTreeMap::new());
}

#[test]
fn units_that_are_there_stay_as_they_are() {
    for directory in [
        "etc/systemd/system",
        "usr/lib/systemd/system",
        "lib/systemd/system",
    ] {
        let root = Root::new();
        let unit = format!("{directory}/tombolo.service");
        root.write(&unit, "[Unit]\n");
        let told = root.installed(&[]);
        assert!(told.contains(&format!("there already /{unit}\n")), "{told}");
        assert_eq!(root.read(&unit), "[Unit]\n");
        assert!(root.path(SOCKET).exists());
        assert!(root.path(SERVICE).exists() == (unit == SERVICE));
        root.installed(&["--uninstall"]);
        assert_eq!(root.files(), [unit]);
    }
    // What a package brings later takes the place of ours.
    let root = Root::new();
    root.installed(&[]);
    root.write("lib/systemd/system/tombolo.service", "[Unit]\n");
    let told = root.installed(&[]);
    assert!(told.contains(&format!("removed /{SERVICE}\n")), "{told}");
}

#[test]
fn what_cannot_be_written_leaves_nothing_half_done() {
    let root = Root::new();
    root.write("etc/tombolo", "a file\n");
    let before = root.tree();
    let (code, out, err) = root.install(&[]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains(CONFIG), "{err}");
    assert_eq!(root.tree(), before);
    let (code, _, err) = Host::silent().tombolo(&["docker", "install", "--root", "/no/such"]);
    assert!(code == 2 && err.contains("/no/such"), "{err}");
}

#[test]
fn a_managed_plugin_is_this_program_with_all_that_it_needs() {
    let host = Host::silent();
    let plugin = host.temp.path().join("new/plugin");
    let directory = plugin.to_str().unwrap();
    let told = host.output(&["docker", "plugin", directory]);
    let create = format!("docker plugin create tombolo {directory}\n");
    assert!(told.contains(&create), "{told}");
    let config = fs::read_to_string(plugin.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let types = ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"];
    assert_eq!(config["interface"]["types"], serde_json::json!(types));
    assert_eq!(config["interface"]["socket"], "tombolo.sock");
    assert_eq!(config["network"]["type"], "host");
    // The engine lets mounts reach the host only where there is one.
    assert_eq!(config["propagatedMount"], "/mnt");
    assert_eq!(config["entrypoint"][0], "/usr/bin/tombolo");
    let capabilities = config["linux"]["capabilities"].as_array().unwrap();
    assert!(capabilities.contains(&"CAP_NET_ADMIN".into()));
    let rootfs = plugin.join("rootfs");
    for mount in config["mounts"].as_array().unwrap() {
        assert_eq!(mount["settable"], serde_json::json!(["source"]));
        assert!(mount["destination"].as_str().unwrap().starts_with('/'));
    }
    for directory in [
        "run/docker/plugins",
        "var/lib/tombolo",
        "run/tombolo",
        "proc",
        "sys",
        "tmp",
    ] {
        assert!(rootfs.join(directory).is_dir(), "{directory}");
    }
    runs_within(&rootfs);

    let (code, out, err) = host.tombolo(&["docker", "plugin", directory]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("is not empty"), "{err}");
}

/// The program starts where nothing else is. Only root may change the root directory; for others its loader and
/// libraries are looked for.
fn runs_within(rootfs: &Path) {
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("chroot");
        let output = command
            .arg(rootfs)
            .args(["/usr/bin/tombolo", "--version"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.starts_with("tombolo "),
            "{output:?}"
        );
        return;
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines().filter(|line| line.ends_with("/libc.so.6")) {
        let library = &line[line.find('/').unwrap() + 1..];
        assert!(rootfs.join(library).is_file(), "{library}");
    }
}

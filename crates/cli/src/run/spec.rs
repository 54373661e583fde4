//! What is asked of the runtime: one process and the world it should see.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits;

/// Everything needed to start one process, kept as `spec.json` in its state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Unique id: letters, digits, `_`, `.` and `-`, starting with a letter or digit.
    pub id: String,
    /// Unique name, of the same alphabet as the id.
    pub name: String,
    /// Host name in the private UTS namespace.
    pub hostname: String,
    /// Path of the network namespace to join; `None` stays in the caller's.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// Directory that becomes `/`; `None` keeps the host's root file system.
    #[serde(default)]
    pub rootfs: Option<PathBuf>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment as `NAME=value`; nothing else is inherited.
    #[serde(default)]
    pub env: Vec<String>,
    /// Environment of its links as `NAME=value`, which `env` goes over; it may differ at each start.
    #[serde(default)]
    pub link_env: Vec<String>,
    /// `uid[:gid]` or `name[:group]`, looked up in the `/etc/passwd` the process sees; `None` is root.
    #[serde(default)]
    pub user: Option<String>,
    /// Working directory, absolute; created in a rootfs when it is missing.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Give the process a terminal of its own.
    #[serde(default)]
    pub tty: bool,
    /// Keep standard input open for an attached client; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin_open: bool,
    /// Run a small init as pid 1 which reaps orphans and forwards signals.
    #[serde(default)]
    pub init: bool,
    /// Host paths made visible to the process.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// Sysctls below `net.`, written inside the network namespace.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Directory holding any of `hosts`, `hostname` and `resolv.conf`, shown over those in `/etc`.
    ///
    /// They are bound as files, so whoever changes them later must write them in place.
    #[serde(default)]
    pub files: Option<PathBuf>,
    /// Capabilities added to the default set, such as `NET_ADMIN`, or `ALL`.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// Capabilities removed from the default set, or `ALL`.
    #[serde(default)]
    pub cap_drop: Vec<String>,
    /// All capabilities, writable `/proc/sys` and `/sys`, and no `no_new_privs`.
    #[serde(default)]
    pub privileged: bool,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Delete the state directory when the process has ended and the exit hook has succeeded.
    #[serde(default)]
    pub auto_remove: bool,
    /// Log file; `None` is `log` in the state directory.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Size at which the log is rotated, in bytes.
    #[serde(default = "default_log_bytes")]
    pub log_max_bytes: u64,
    /// Arguments for this same program, run after the process has ended; empty for none.
    #[serde(default)]
    pub on_exit: Vec<String>,
}

/// One host path made visible to the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Absolute path on the host; it must exist.
    pub host: PathBuf,
    /// Absolute path seen by the process; created in a rootfs when it is missing.
    pub container: PathBuf,
    /// Refuse writes, below mounts inside it too.
    #[serde(default)]
    pub read_only: bool,
}

/// What to run inside an already running process' namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment added to that of the process' spec.
    #[serde(default)]
    pub env: Vec<String>,
    /// As in [`ProcessSpec`]; `None` is the user of the process' spec.
    #[serde(default)]
    pub user: Option<String>,
    /// Working directory; `None` is that of the process' spec.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Give it a terminal of its own.
    #[serde(default)]
    pub tty: bool,
    /// Pass the caller's standard input on; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin_open: bool,
    /// All capabilities, and no `no_new_privs`.
    #[serde(default)]
    pub privileged: bool,
    /// Return as soon as the program is running; its output is discarded.
    #[serde(default)]
    pub detach: bool,
}

/// Why a spec cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Id or name breaks the alphabet or the length.
    #[error(
        "{field} {value:?} must be 1 to {max} letters, digits, '_', '.' or '-', and start with a letter or digit",
        max = limits::NAME_BYTES
    )]
    Name {
        /// `id` or `name`.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// The host name is empty, longer than 64 bytes (`HOST_NAME_MAX`) or holds odd characters.
    #[error("host name {0:?} must be 1 to 64 letters, digits, '.' or '-'")]
    Hostname(String),
    /// There is no program to run.
    #[error("no program was given to run")]
    NoProgram,
    /// A list is longer than its limit.
    #[error("too many {what}: {count}, at most {max}", max = limits::SPEC_ITEMS)]
    TooMany {
        /// The list.
        what: &'static str,
        /// Its length.
        count: usize,
    },
    /// A text holds a NUL byte, which no system call accepts.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
    /// An environment entry is not `NAME=value`.
    #[error("environment entry {0:?} is not NAME=value")]
    Env(String),
    /// A path must be absolute and free of `..`.
    #[error("{what} {path:?} must be an absolute path without '..'")]
    Path {
        /// Which path.
        what: &'static str,
        /// What was given.
        path: PathBuf,
    },
    /// Only sysctls of the network namespace can be set for one process alone.
    #[error("sysctl {0:?} is not below net., so it cannot be set for one process alone")]
    ForeignSysctl(String),
    /// In the host's network namespace a sysctl would change the host.
    #[error("sysctl {0:?} would change the host: the process has no network namespace of its own")]
    HostSysctl(String),
    /// A capability has no such name.
    #[error("unknown capability {0:?}")]
    Capability(String),
}

fn default_log_bytes() -> u64 {
    limits::LOG_BYTES
}

impl ProcessSpec {
    /// A spec with defaults for everything but what cannot be guessed.
    pub fn new(id: impl Into<String>, argv: Vec<String>) -> Self {
        let id = id.into();
        Self {
            name: id.clone(),
            hostname: id.chars().filter(|c| *c != '_').take(12).collect(),
            id,
            netns: None,
            rootfs: None,
            argv,
            env: Vec::new(),
            link_env: Vec::new(),
            user: None,
            cwd: None,
            tty: false,
            stdin_open: false,
            init: false,
            binds: Vec::new(),
            sysctls: BTreeMap::new(),
            files: None,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            labels: BTreeMap::new(),
            auto_remove: false,
            log_path: None,
            log_max_bytes: limits::LOG_BYTES,
            on_exit: Vec::new(),
        }
    }

    /// Refuses what could not be started, or would reach beyond the process' own world.
    pub fn validate(&self) -> Result<(), SpecError> {
        check_name("id", &self.id)?;
        check_name("name", &self.name)?;
        check_hostname(&self.hostname)?;
        check_program(&self.argv, &self.env)?;
        check_environment(&self.link_env)?;
        check_count("binds", self.binds.len())?;
        check_count("sysctls", self.sysctls.len())?;
        let paths = [
            ("network namespace", &self.netns),
            ("root directory", &self.rootfs),
            ("working directory", &self.cwd),
            ("file directory", &self.files),
            ("log file", &self.log_path),
        ];
        for (what, path) in paths {
            path.iter().try_for_each(|path| check_path(what, path))?;
        }
        for bind in &self.binds {
            check_path("bind source", &bind.host)?;
            check_path("bind target", &bind.container)?;
        }
        for key in self.sysctls.keys() {
            sysctl_path(key)?;
            if self.netns.is_none() {
                return Err(SpecError::HostSysctl(key.clone()));
            }
        }
        super::privileges::capability_set(self)?;
        Ok(())
    }
}

impl ExecSpec {
    /// Refuses what could not be started.
    pub fn validate(&self) -> Result<(), SpecError> {
        check_program(&self.argv, &self.env)?;
        self.cwd
            .iter()
            .try_for_each(|path| check_path("working directory", path))
    }
}

/// The path below `/proc/sys` of a sysctl of the network namespace.
///
/// As in sysctl(8): with a `/` in the key, `/` separates and a `.` belongs to a name (`net/ipv4/conf/eth0.5/..`).
pub(super) fn sysctl_path(key: &str) -> Result<PathBuf, SpecError> {
    let separator = if key.contains('/') { '/' } else { '.' };
    let parts: Vec<&str> = key.split(separator).collect();
    let sound = parts.len() > 1
        && parts[0] == "net"
        && parts
            .iter()
            .all(|part| !part.is_empty() && *part != "." && *part != "..");
    if sound && !key.contains('\0') {
        Ok(parts.iter().collect())
    } else {
        Err(SpecError::ForeignSysctl(key.to_owned()))
    }
}

fn check_name(field: &'static str, value: &str) -> Result<(), SpecError> {
    let first = value
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && value.len() <= limits::NAME_BYTES {
        Ok(())
    } else {
        Err(SpecError::Name {
            field,
            value: value.to_owned(),
        })
    }
}

fn check_hostname(name: &str) -> Result<(), SpecError> {
    let sound = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if sound && (1..=64).contains(&name.len()) {
        Ok(())
    } else {
        Err(SpecError::Hostname(name.to_owned()))
    }
}

fn check_program(argv: &[String], env: &[String]) -> Result<(), SpecError> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoProgram);
    }
    check_count("arguments", argv.len())?;
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(SpecError::Nul("an argument"));
    }
    check_environment(env)
}

fn check_environment(env: &[String]) -> Result<(), SpecError> {
    check_count("environment entries", env.len())?;
    for entry in env {
        if entry.contains('\0') {
            return Err(SpecError::Nul("an environment entry"));
        }
        if entry
            .split_once('=')
            .is_none_or(|(name, _)| name.is_empty())
        {
            return Err(SpecError::Env(entry.clone()));
        }
    }
    Ok(())
}

fn check_count(what: &'static str, count: usize) -> Result<(), SpecError> {
    if count > limits::SPEC_ITEMS {
        return Err(SpecError::TooMany { what, count });
    }
    Ok(())
}

fn check_path(what: &'static str, path: &Path) -> Result<(), SpecError> {
    let sound = path.is_absolute()
        && !path.components().any(|part| part == Component::ParentDir)
        && !path.as_os_str().as_encoded_bytes().contains(&0);
    if sound {
        Ok(())
    } else {
        Err(SpecError::Path {
            what,
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ProcessSpec {
        ProcessSpec::new("a1", vec!["true".into()])
    }

    #[test]
    fn a_minimal_spec_is_sound_and_survives_json() {
        let spec = spec();
        spec.validate().unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ProcessSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn ids_cannot_leave_the_state_directory() {
        for id in [
            "",
            "../x",
            "a/b",
            ".hidden",
            "-x",
            &"a".repeat(limits::NAME_BYTES + 1),
        ] {
            let wrong = ProcessSpec {
                id: id.into(),
                ..spec()
            };
            assert!(
                matches!(wrong.validate(), Err(SpecError::Name { field: "id", .. })),
                "{id}"
            );
        }
    }

    #[test]
    fn sysctls_stay_below_net_and_inside_the_namespace() {
        assert_eq!(
            sysctl_path("net.ipv4.ip_forward").unwrap(),
            Path::new("net/ipv4/ip_forward")
        );
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.5/forwarding").unwrap(),
            Path::new("net/ipv4/conf/eth0.5/forwarding")
        );
        for key in [
            "kernel.hostname",
            "net",
            "net..x",
            "net/../kernel/panic",
            "/net/x",
            "netx.y",
        ] {
            assert_eq!(sysctl_path(key), Err(SpecError::ForeignSysctl(key.into())));
        }
        let mut host = spec();
        host.sysctls
            .insert("net.ipv4.ip_forward".into(), "1".into());
        assert_eq!(
            host.validate(),
            Err(SpecError::HostSysctl("net.ipv4.ip_forward".into()))
        );
        host.netns = Some("/run/netns/x".into());
        host.validate().unwrap();
    }

    #[test]
    fn odd_environments_arguments_and_paths_are_refused() {
        let wrong = ProcessSpec {
            env: vec!["=x".into()],
            ..spec()
        };
        assert_eq!(wrong.validate(), Err(SpecError::Env("=x".into())));
        let wrong = ProcessSpec {
            argv: vec![],
            ..spec()
        };
        assert_eq!(wrong.validate(), Err(SpecError::NoProgram));
        let wrong = ProcessSpec {
            argv: vec!["a\0".into()],
            ..spec()
        };
        assert_eq!(wrong.validate(), Err(SpecError::Nul("an argument")));
        let wrong = ProcessSpec {
            rootfs: Some("/a/../b".into()),
            ..spec()
        };
        assert!(matches!(wrong.validate(), Err(SpecError::Path { .. })));
        let wrong = ProcessSpec {
            env: vec!["A=".into(); limits::SPEC_ITEMS + 1],
            ..spec()
        };
        assert!(matches!(wrong.validate(), Err(SpecError::TooMany { .. })));
    }
}

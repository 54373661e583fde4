//! `tombolo docker plugin`.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::elf;
use super::files::{UNITS, under};
use crate::context::Context;
use crate::error::CommandError;

/// Where the program is in the plugin.
const PROGRAM: &str = "/usr/bin/tombolo";
/// Directories that the plugin has, with their modes; what is mounted there hides them.
const DIRECTORIES: [(&str, u32); 10] = [
    ("/run/docker/plugins", 0o755),
    ("/var/run/docker", 0o755),
    ("/var/lib/tombolo", 0o700),
    ("/run/tombolo", 0o755),
    ("/etc", 0o755),
    ("/proc", 0o755),
    ("/sys", 0o755),
    ("/dev", 0o755),
    ("/tmp", 0o1777),
    ("/mnt", 0o755),
];
/// What the unit calls the capabilities that the daemon may have.
const CAPABILITIES: &str = "CapabilityBoundingSet=";

/// Where to write the plugin.
#[derive(Debug, Args)]
pub(crate) struct PluginArgs {
    /// Directory for the plugin: config.json, and rootfs with this very program; new or empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Why no plugin is written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PluginError {
    /// There is something at the place of the plugin.
    #[error("{path} is not empty; name a new directory", path = path.display())]
    NotEmpty {
        /// The place.
        path: PathBuf,
    },
    /// The place of the plugin cannot be looked at or made.
    #[error("cannot use {path} for the plugin", path = path.display())]
    Directory {
        /// The place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What this program consists of cannot be found out.
    #[error("cannot read {path} to see what this program needs")]
    Own {
        /// The file that says so.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file of the plugin cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Carries out the command.
pub(super) fn execute(args: &PluginArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let directory = &args.directory;
    prepare(directory)?;
    let rootfs = directory.join("rootfs");
    let config = directory.join("config.json");
    // The configuration comes last: without it the directory is no plugin.
    let written = write_rootfs(&rootfs).and_then(|()| {
        let text = format!("{:#}\n", config_json());
        fs::write(&config, text).map_err(write_error(&config))
    });
    if let Err(error) = written {
        drop(fs::remove_dir_all(&rootfs));
        drop(fs::remove_file(&config));
        return Err(error.into());
    }
    let shown = directory.display();
    writeln!(context.out, "wrote {shown}/config.json")?;
    writeln!(context.out, "wrote {shown}/rootfs")?;
    writeln!(context.out, "next:")?;
    writeln!(context.out, "  mkdir -p /var/lib/tombolo /run/tombolo")?;
    writeln!(context.out, "  docker plugin create tombolo {shown}")?;
    writeln!(context.out, "  docker plugin enable tombolo")?;
    Ok(())
}

/// Makes the directory, or sees that it is empty.
fn prepare(directory: &Path) -> Result<(), PluginError> {
    let failed = |source| PluginError::Directory {
        path: directory.to_owned(),
        source,
    };
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(PluginError::NotEmpty {
                path: directory.to_owned(),
            }),
        },
    }
}

/// Writes the files that the plugin sees: this program and what it is linked with, at the paths that they have here.
fn write_rootfs(rootfs: &Path) -> Result<(), PluginError> {
    for (directory, mode) in DIRECTORIES {
        let path = under(rootfs, Path::new(directory));
        let made = fs::create_dir_all(&path);
        made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .map_err(write_error(&path))?;
    }
    let program = under(rootfs, Path::new(PROGRAM));
    copy(Path::new("/proc/self/exe"), &program)?;
    let own = |path| move |source| PluginError::Own { path, source };
    let maps = fs::read_to_string("/proc/self/maps").map_err(own("/proc/self/maps"))?;
    for library in elf::libraries(&maps) {
        copy(&library, &under(rootfs, &library))?;
        for (name, target) in names(&library) {
            link(&target, &under(rootfs, &name))?;
        }
    }
    let file = fs::read("/proc/self/exe").map_err(own("/proc/self/exe"))?;
    if let Some(interpreter) = elf::interpreter(&file) {
        let real = fs::canonicalize(&interpreter).map_err(write_error(&interpreter))?;
        let there = under(rootfs, &real);
        if !there.exists() {
            copy(&real, &there)?;
        }
        if real != interpreter {
            link(&real, &under(rootfs, &interpreter))?;
        }
    }
    Ok(())
}

/// Other names by which a library is asked for: links to it in its own directory, such as `libx.so.1`.
fn names(library: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let (Some(directory), Some(file)) = (library.parent(), library.file_name()) else {
        return BTreeMap::new();
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        (target.as_os_str() == file).then(|| (entry.path(), target))
    });
    links.collect()
}

fn copy(from: &Path, to: &Path) -> Result<(), PluginError> {
    let made = to.parent().map_or(Ok(()), fs::create_dir_all);
    let copied = made.and_then(|()| fs::copy(from, to));
    copied
        .and_then(|_| fs::set_permissions(to, Permissions::from_mode(0o755)))
        .map_err(write_error(to))
}

fn link(target: &Path, path: &Path) -> Result<(), PluginError> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| symlink(target, path))
        .map_err(write_error(path))
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> PluginError + use<> {
    let path = path.to_owned();
    move |source| PluginError::Write {
        path: path.clone(),
        source,
    }
}

/// The plugin's configuration, by "Plugin Config Version 1 of Plugin V2" of Docker's documentation.
fn config_json() -> Value {
    json!({
        "description": "Tombolo container networks and their addresses",
        "documentation": "https://docs.docker.com/engine/extend/plugins_network/",
        "interface": {
            "types": ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"],
            "socket": "tombolo.sock",
        },
        "entrypoint": [
            PROGRAM,
            "daemon",
            "--docker-plugin",
            "/run/docker/plugins/tombolo.sock",
            "--docker-engine",
            "/run/docker.sock",
            "--docker-managed",
        ],
        "network": { "type": "host" },
        // Without one, whatever it is, the engine keeps every mount from reaching the host, rshared or not.
        "propagatedMount": "/mnt",
        "mounts": [
            mount("docker", "Namespaces of the engine's containers", ["/var/run/docker"; 2], "rslave"),
            mount("engine", "Socket of the engine", ["/var/run/docker.sock", "/run/docker.sock"], "rslave"),
            mount("state", "What lasts", ["/var/lib/tombolo"; 2], "rshared"),
            mount("run", "What lasts until the next boot", ["/run/tombolo"; 2], "rshared"),
        ],
        "linux": { "capabilities": capabilities(), "allowAllDevices": false, "devices": [] },
    })
}

fn mount(name: &str, description: &str, [source, destination]: [&str; 2], spread: &str) -> Value {
    json!({
        "name": name,
        "description": description,
        "settable": ["source"],
        "source": source,
        "destination": destination,
        "type": "bind",
        "options": ["rbind", spread],
    })
}

/// The capabilities that the unit of the daemon has.
fn capabilities() -> Vec<&'static str> {
    let lines = UNITS.iter().flat_map(|(_, text)| text.lines());
    let sets = lines.filter_map(|line| line.strip_prefix(CAPABILITIES));
    sets.flat_map(str::split_whitespace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capabilities_are_those_of_the_unit() {
        let found = capabilities();
        assert!(
            found.iter().all(|name| name.starts_with("CAP_")),
            "{found:?}"
        );
        assert!(found.contains(&"CAP_NET_ADMIN") && found.contains(&"CAP_KILL"));
    }

    #[test]
    fn a_library_has_its_other_names() {
        let temp = tempfile::tempdir().unwrap();
        let library = temp.path().join("libx.so.1.2");
        fs::write(&library, "").unwrap();
        symlink("libx.so.1.2", temp.path().join("libx.so.1")).unwrap();
        symlink("liby.so.1.2", temp.path().join("liby.so.1")).unwrap();
        let expected = (temp.path().join("libx.so.1"), PathBuf::from("libx.so.1.2"));
        assert_eq!(names(&library), BTreeMap::from([expected]));
    }
}

//! The files of a host whose Docker uses us, and how our own are told from those of others.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::limits::INSTALLED_FILE_BYTES;

/// Our part of the daemon's configuration.
pub(super) const CONFIG: &str = "/etc/tombolo/tombolo.d/docker.toml";
/// The service units, as they are shipped.
pub(super) const UNITS: [(&str, &str); 2] = [
    (
        "tombolo.service",
        include_str!("../../../../../packaging/tombolo.service"),
    ),
    (
        "tombolo.socket",
        include_str!("../../../../../packaging/tombolo.socket"),
    ),
];
/// Where units of the administrator are.
pub(super) const UNIT_DIR: &str = "/etc/systemd/system";
/// Where units of packages are.
pub(super) const PACKAGED_UNIT_DIRS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// What makes Docker start after us.
const ORDER: &str = "/etc/systemd/system/docker.service.d/tombolo.conf";
/// How the first line of our files begins. The sum of the rest follows it, so that a change by hand is seen,
/// whatever version has written the file.
const MARK: &str = "# Written by `tombolo docker install`, with the sum ";
/// How the line of our configuration begins that lists the directories that were made.
const MADE: &str = "# Directories made besides: ";

/// How Docker's engine finds the socket of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It is in the engine's own directory of sockets.
    Socket,
    /// A text file says where it is.
    Spec,
    /// A JSON file says where it is.
    Json,
}

impl Form {
    /// The socket of the plugin.
    fn socket(self) -> &'static str {
        match self {
            Self::Socket => "/run/docker/plugins/tombolo.sock",
            Self::Spec | Self::Json => "/run/tombolo/docker-plugin.sock",
        }
    }

    /// The file that says where the socket is, where there is to be one.
    pub(super) fn pointer(self) -> Option<Piece> {
        let address = format!("unix://{}", self.socket());
        let (path, content) = match self {
            Self::Socket => return None,
            Self::Spec => ("/etc/docker/plugins/tombolo.spec", format!("{address}\n")),
            Self::Json => (
                "/etc/docker/plugins/tombolo.json",
                format!("{{\"Name\":\"tombolo\",\"Addr\":\"{address}\"}}\n"),
            ),
        };
        Some(Piece {
            path: path.into(),
            content,
        })
    }
}

/// A file as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its absolute path on the host for which it is meant.
    pub(super) path: PathBuf,
    /// What is in it.
    pub(super) content: String,
}

/// How a file is, compared with what it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not there.
    Missing,
    /// It is as it is to be.
    Same,
    /// We wrote it, perhaps as another version, and nobody has changed it.
    Ours,
    /// We wrote it, and somebody has changed it.
    Changed,
    /// It is somebody else's.
    Foreign,
}

impl Piece {
    /// Our part of the daemon's configuration, which also remembers the directories that were made.
    pub(super) fn config(form: Form, made: &BTreeSet<PathBuf>) -> Self {
        let made: String = made
            .iter()
            .map(|directory| format!("{MADE}{}\n", directory.display()))
            .collect();
        Self::marked(
            CONFIG,
            &format!(
                "{made}[docker]\nplugin-socket = \"{}\"\nengines = [\"/run/docker.sock\"]\n",
                form.socket()
            ),
        )
    }

    /// What makes Docker start after us.
    pub(super) fn order() -> Self {
        Self::marked(
            ORDER,
            "[Unit]\nWants=tombolo.service\nAfter=tombolo.service\n",
        )
    }

    /// A unit of ours, for hosts that have no package of it.
    pub(super) fn unit(name: &str, text: &str) -> Self {
        Self::marked(&format!("{UNIT_DIR}/{name}"), text)
    }

    fn marked(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            content: format!("{MARK}{:016x}\n{text}", sum(text)),
        }
    }

    /// How the file is below `root`.
    pub(super) fn standing(&self, root: &Path) -> io::Result<Standing> {
        let Some(found) = read(&under(root, &self.path))? else {
            return Ok(Standing::Missing);
        };
        let Found::Text(text) = found else {
            return Ok(Standing::Foreign);
        };
        if text == self.content {
            return Ok(Standing::Same);
        }
        let marked = text
            .strip_prefix(MARK)
            .and_then(|rest| rest.split_once('\n'));
        Ok(match marked {
            Some((told, rest)) if told == format!("{:016x}", sum(rest)) => Standing::Ours,
            Some(_) => Standing::Changed,
            None => Standing::Foreign,
        })
    }
}

/// The directories that our configuration below `root` says were made for our files.
pub(super) fn made_before(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let Some(Found::Text(text)) = read(&under(root, Path::new(CONFIG)))? else {
        return Ok(BTreeSet::new());
    };
    if !text.starts_with(MARK) {
        return Ok(BTreeSet::new());
    }
    let lines = text.lines().filter_map(|line| line.strip_prefix(MADE));
    Ok(lines.map(PathBuf::from).collect())
}

/// Where a path of the host is whose root directory is `root`.
pub(super) fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

enum Found {
    Text(String),
    /// No file, or none that we could have written.
    Other,
}

fn read(path: &Path) -> io::Result<Option<Found>> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if !found.is_file() || found.len() > INSTALLED_FILE_BYTES {
        return Ok(Some(Found::Other));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(INSTALLED_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(
        String::from_utf8(bytes).map_or(Found::Other, Found::Text),
    ))
}

/// FNV-1a with 64 bits: it tells changes by hand, not attacks.
fn sum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_files_are_told_from_changed_and_from_foreign_ones() {
        let temp = tempfile::tempdir().unwrap();
        let piece = Piece::marked("/x", "a\n");
        let older = Piece::marked("/x", "b\n");
        let path = temp.path().join("x");
        let standing = |text: &str| {
            fs::write(&path, text).unwrap();
            piece.standing(temp.path()).unwrap()
        };
        assert_eq!(standing(&piece.content), Standing::Same);
        assert_eq!(standing(&older.content), Standing::Ours);
        let changed = older.content.replace("\nb", "\nc");
        assert_eq!(standing(&changed), Standing::Changed);
        assert_eq!(standing("a\n"), Standing::Foreign);
        let long = "x".repeat(usize::try_from(INSTALLED_FILE_BYTES).unwrap());
        let at_limit = Piece {
            path: "/x".into(),
            content: long.clone(),
        };
        fs::write(&path, &long).unwrap();
        assert_eq!(at_limit.standing(temp.path()).unwrap(), Standing::Same);
        assert_eq!(standing(&format!("{long}x")), Standing::Foreign);
        fs::remove_file(&path).unwrap();
        assert_eq!(piece.standing(temp.path()).unwrap(), Standing::Missing);
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert_eq!(piece.standing(temp.path()).unwrap(), Standing::Foreign);
    }

    #[test]
    fn the_sum_is_that_of_the_published_examples() {
        assert_eq!(sum(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(sum("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(sum("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_directories_that_were_made_are_remembered() {
        let temp = tempfile::tempdir().unwrap();
        let made: BTreeSet<PathBuf> = ["/etc/tombolo".into(), "/etc/docker".into()].into();
        let piece = Piece::config(Form::Spec, &made);
        assert_eq!(made_before(temp.path()).unwrap(), BTreeSet::new());
        let path = under(temp.path(), &piece.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, piece.content).unwrap();
        assert_eq!(made_before(temp.path()).unwrap(), made);
    }
}

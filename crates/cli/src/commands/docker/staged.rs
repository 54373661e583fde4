//! Files that come into being together, or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files under temporary names. What is not kept by [`Staged::keep`] goes on drop, with the directories made for it.
#[derive(Debug, Default)]
pub(super) struct Staged {
    files: Vec<(PathBuf, PathBuf)>,
    directories: Vec<PathBuf>,
}

impl Staged {
    /// Writes a file for everybody to read, beside the place where it is to be.
    pub(super) fn add(&mut self, path: &Path, content: &str) -> io::Result<()> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        self.make(directory)?;
        // Hidden names are read by neither systemd nor Docker nor us.
        let temporary = directory.join(format!(".{}.new", name.to_string_lossy()));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        self.files.push((temporary, path.to_owned()));
        file.write_all(content.as_bytes())?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.sync_all()
    }

    /// Gives the files their names.
    pub(super) fn keep(mut self) -> io::Result<()> {
        while let Some((temporary, path)) = self.files.last() {
            fs::rename(temporary, path)?;
            self.files.pop();
        }
        self.directories.clear();
        Ok(())
    }

    fn make(&mut self, directory: &Path) -> io::Result<()> {
        let missing = directory.ancestors().take_while(|path| !path.exists());
        let missing: Vec<&Path> = missing.collect();
        for path in missing.into_iter().rev() {
            fs::create_dir(path)?;
            self.directories.push(path.to_owned());
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be taken back is hidden or empty, and does no harm.
        for (temporary, _) in &self.files {
            drop(fs::remove_file(temporary));
        }
        for directory in self.directories.iter().rev() {
            drop(fs::remove_dir(directory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let count = || fs::read_dir(temp.path()).unwrap().count();
        let mut staged = Staged::default();
        staged.add(&temp.path().join("a/b/c"), "x").unwrap();
        staged.add(&temp.path().join("d"), "y").unwrap();
        assert_eq!(count(), 2);
        // A file cannot be where a directory has to be.
        staged
            .add(&temp.path().join("a/b/.c.new/e"), "z")
            .unwrap_err();
        drop(staged);
        assert_eq!(count(), 0);
    }

    #[test]
    fn what_is_kept_replaces_what_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/c");
        for text in ["x", "y"] {
            let mut staged = Staged::default();
            staged.add(&path, text).unwrap();
            staged.keep().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(temp.path().join("a")).unwrap().count(), 1);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o644);
    }
}

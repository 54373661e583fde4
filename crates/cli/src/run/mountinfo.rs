//! Reading `/proc/self/mountinfo`: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

/// The mount points at and below `path`, with the flags each has.
pub(super) fn below(table: &[u8], path: &Path) -> Vec<(PathBuf, MsFlags)> {
    let lines = table.split(|&byte| byte == b'\n');
    lines
        .filter_map(parse)
        .filter(|(mounted, _)| mounted.starts_with(path))
        .collect()
}

fn parse(line: &[u8]) -> Option<(PathBuf, MsFlags)> {
    let mut fields = line.split(|&byte| byte == b' ').skip(4);
    let path = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let options = fields.next()?.split(|&byte| byte == b',');
    Some((
        path,
        options.fold(MsFlags::empty(), |flags, option| flags | flag(option)),
    ))
}

fn flag(option: &[u8]) -> MsFlags {
    match option {
        b"ro" => MsFlags::MS_RDONLY,
        b"nosuid" => MsFlags::MS_NOSUID,
        b"nodev" => MsFlags::MS_NODEV,
        b"noexec" => MsFlags::MS_NOEXEC,
        b"noatime" => MsFlags::MS_NOATIME,
        b"nodiratime" => MsFlags::MS_NODIRATIME,
        b"relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    }
}

/// Undoes the kernel's `\040` form of white space and backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_path_are_found_with_their_flags() {
        let table = b"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            22 21 0:5 / /data rw,nosuid,nodev - tmpfs tmpfs rw\n\
            23 22 0:6 /x /data/a\\040b ro,noexec - tmpfs tmpfs rw\n\
            24 21 0:7 / /database rw - tmpfs tmpfs rw\n";
        let found = below(table, Path::new("/data"));
        let expected = [
            (
                PathBuf::from("/data"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            ),
            (
                PathBuf::from("/data/a b"),
                MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC,
            ),
        ];
        assert_eq!(found, expected);
        assert_eq!(below(table, Path::new("/")).len(), 4);
    }
}

//! What a program needs beside itself: its loader and the libraries that the running process has mapped.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// The start of every ELF file, then 2 for 64 bits (elf(5)).
const ELF64: &[u8] = b"\x7fELF\x02";
/// `PT_INTERP` of elf(5).
const INTERP: u32 = 3;

/// The loader that an ELF file with 64 bits names, if it names one; nothing for what is no such file. The byte order
/// is that of this machine: the file is our own program.
pub(super) fn interpreter(file: &[u8]) -> Option<PathBuf> {
    if !file.starts_with(ELF64) {
        return None;
    }
    let headers = usize::try_from(u64::from_ne_bytes(array(file, 0x20)?)).ok()?;
    let size = usize::from(u16::from_ne_bytes(array(file, 0x36)?));
    let count = usize::from(u16::from_ne_bytes(array(file, 0x38)?));
    for index in 0..count {
        let header = file.get(headers.checked_add(index * size)?..)?;
        if u32::from_ne_bytes(array(header, 0)?) != INTERP {
            continue;
        }
        let offset = usize::try_from(u64::from_ne_bytes(array(header, 8)?)).ok()?;
        let length = usize::try_from(u64::from_ne_bytes(array(header, 32)?)).ok()?;
        let name = file.get(offset..offset.checked_add(length)?)?;
        let name = std::str::from_utf8(name.strip_suffix(b"\0")?).ok()?;
        return Some(name.into());
    }
    None
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The shared libraries in a table of mappings, `/proc/PID/maps` of proc(5); the loader is among them.
pub(super) fn libraries(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]));
    paths
        .filter(|path| is_library(path))
        .map(PathBuf::from)
        .collect()
}

fn is_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.ends_with(".so") || name.contains(".so.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_this_test_is_found_and_its_libraries_with_it() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libraries = libraries(&maps);
        let found = interpreter(&file);
        let expected = found.map(|path| path.canonicalize().unwrap());
        assert_eq!(
            libraries.is_empty(),
            expected.is_none(),
            "a static program has neither"
        );
        assert!(expected.is_none_or(|path| libraries.contains(&path)));
    }

    #[test]
    fn only_libraries_are_taken_from_the_table() {
        let maps = "7f00-7f01 r--p 00000000 08:01 1  /usr/lib/libc.so.6\n\
                    7f01-7f02 r-xp 00001000 08:01 1  /usr/lib/libc.so.6\n\
                    7f02-7f03 r--p 00000000 08:01 2  /usr/lib/locale/locale-archive\n\
                    7f03-7f04 r--p 00000000 08:01 3  /opt/a b/libx.so\n\
                    7f04-7f05 rw-p 00000000 00:00 0  [heap]\n\
                    7f05-7f06 rw-p 00000000 00:00 0\n\
                    7f06-7f07 r--p 00000000 08:01 4  /usr/bin/tombolo\n";
        let expected = ["/opt/a b/libx.so", "/usr/lib/libc.so.6"].map(PathBuf::from);
        assert_eq!(libraries(maps), BTreeSet::from(expected));
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes: Vec<u8>, headers: u64, entry: [u8; 6]) {
            let mut file = [ELF64, &bytes].concat();
            file.resize(file.len().max(64), 0);
            interpreter(&file);
            file[0x20..0x28].copy_from_slice(&headers.to_ne_bytes());
            file[0x36..0x3c].copy_from_slice(&entry);
            interpreter(&file);
        }
    }
}

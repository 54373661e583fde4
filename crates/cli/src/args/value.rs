//! Values that several flags share: `KEY=VALUE` pairs, optional booleans and environment files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::limits;

/// A key and its value; the value is empty when there was no `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyValue {
    /// Before the first `=`.
    pub(crate) key: String,
    /// After it.
    pub(crate) value: String,
}

/// Reads `KEY=VALUE` or `KEY`, as labels and driver options are written.
///
/// # Errors
/// When the key is empty.
pub(crate) fn key_value(text: &str) -> Result<KeyValue, String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err("the part before `=` is empty".to_owned());
    }
    Ok(KeyValue {
        key: key.trim().to_owned(),
        value: value.to_owned(),
    })
}

/// Reads `KEY=VALUE` where the value is needed.
///
/// # Errors
/// When a part is empty or there is no `=`.
pub(crate) fn key_with_value(text: &str) -> Result<KeyValue, String> {
    let pair = key_value(text)?;
    if pair.value.is_empty() {
        return Err(format!("`{text}` has no value; write {}=VALUE", pair.key));
    }
    Ok(pair)
}

/// The pairs by key; the last of a key wins.
pub(crate) fn into_map(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|pair| (pair.key, pair.value))
        .collect()
}

/// Reads `NAME:ADDRESS`, a line for the hosts file. The address may hold colons of its own.
///
/// # Errors
/// When a part is empty or the address is neither an IP address nor `host-gateway`.
pub(crate) fn extra_host(text: &str) -> Result<String, String> {
    // As Docker does: the first of `=` and `:` separates, so that an IPv6 address needs no brackets.
    let split = text
        .find(['=', ':'])
        .map(|at| (&text[..at], &text[at + 1..]));
    let Some((name, address)) = split.filter(|(name, _)| !name.is_empty()) else {
        return Err("write it as NAME:ADDRESS".to_owned());
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!(
            "`{address}` is neither an IP address nor `host-gateway`"
        ));
    }
    Ok(format!("{name}:{address}"))
}

/// Why an environment cannot be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    /// A file cannot be read.
    #[error("cannot read environment file {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than its limit.
    #[error("environment file {path} is larger than {max} bytes", path = path.display(), max = limits::ENV_FILE_BYTES)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// An entry has no name.
    #[error("environment entry `{0}` has no name")]
    NoName(String),
}

/// The environment that files and flags ask for, files first, so that flags win.
///
/// An entry without `=` takes its value from the caller through `lookup`, and is left out when the
/// caller has none.
///
/// # Errors
/// [`EnvError`] for a file that cannot be read and an entry without a name.
pub(crate) fn environment(
    files: &[PathBuf],
    entries: &[String],
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, EnvError> {
    let mut found = Vec::new();
    for path in files {
        let text = read_env_file(path)?;
        let lines = text.lines().map(str::trim_start);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            found.extend(resolve(line, &lookup)?);
        }
    }
    for entry in entries {
        found.extend(resolve(entry, &lookup)?);
    }
    Ok(found)
}

fn read_env_file(path: &Path) -> Result<String, EnvError> {
    let failed = |source| EnvError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > limits::ENV_FILE_BYTES {
        return Err(EnvError::TooLarge {
            path: path.to_owned(),
        });
    }
    fs::read_to_string(path).map_err(failed)
}

fn resolve(
    entry: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, EnvError> {
    match entry.split_once('=') {
        Some(("", _)) => Err(EnvError::NoName(entry.to_owned())),
        Some(_) => Ok(Some(entry.to_owned())),
        None if entry.is_empty() => Err(EnvError::NoName(entry.to_owned())),
        None => Ok(lookup(entry).map(|value| format!("{entry}={value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        let pair = key_value("a=b=c").unwrap();
        assert_eq!((pair.key.as_str(), pair.value.as_str()), ("a", "b=c"));
        assert_eq!(key_value("alone").unwrap().value, "");
        assert!(key_value("=x").is_err());
        assert!(key_with_value("alone").is_err());
    }

    #[test]
    fn extra_hosts_keep_ipv6_addresses_whole() {
        assert_eq!(extra_host("db:10.0.0.1").unwrap(), "db:10.0.0.1");
        assert_eq!(extra_host("db=10.0.0.1").unwrap(), "db:10.0.0.1");
        assert_eq!(extra_host("db:2001:db8::1").unwrap(), "db:2001:db8::1");
        assert_eq!(extra_host("db:[2001:db8::1]").unwrap(), "db:2001:db8::1");
        assert_eq!(extra_host("me:host-gateway").unwrap(), "me:host-gateway");
        for wrong in ["db", ":10.0.0.1", "db:", "db:ten"] {
            assert!(extra_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn flags_win_over_files_and_bare_names_take_the_callers_value() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("env");
        fs::write(&file, "# comment\n\nA=file\n  HOME\nUNSET\n").unwrap();
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let entries = ["A=flag".to_owned(), "UNSET".to_owned()];
        let found = environment(&[file], &entries, lookup).unwrap();
        assert_eq!(found, ["A=file", "HOME=/root", "A=flag"]);
        assert!(matches!(
            environment(&[], &["=x".into()], lookup),
            Err(EnvError::NoName(_))
        ));
    }

    #[test]
    fn an_environment_file_has_a_limit() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("env");
        let size = usize::try_from(limits::ENV_FILE_BYTES).unwrap();
        fs::write(&file, vec![b'#'; size]).unwrap();
        assert!(environment(std::slice::from_ref(&file), &[], |_| None).is_ok());
        fs::write(&file, vec![b'#'; size + 1]).unwrap();
        let error = environment(&[file], &[], |_| None).unwrap_err();
        assert!(matches!(error, EnvError::TooLarge { .. }));
    }
}

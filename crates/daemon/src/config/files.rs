//! The configuration as files: the main one, and what is laid over it by those in the directory beside it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, ConfigError, FILE};
use crate::limits::CONFIG_DROP_INS_MAX;

impl Config {
    /// Reads the file that is named, or the usual one where it exists, and what is laid over it.
    pub(super) fn read(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(FILE));
        let mut texts = Vec::new();
        match std::fs::read_to_string(path) {
            Ok(text) => texts.push((path.to_owned(), text)),
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {}
            Err(source) => return Err(read_error(path, source)),
        }
        for path in drop_ins(path)? {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|source| read_error(&path, source))?;
            texts.push((path, text));
        }
        Self::merge(&texts)
    }

    /// Lays texts over each other, later ones on top. The error names the text from which on it cannot be used.
    pub(super) fn merge(texts: &[(PathBuf, String)]) -> Result<Self, ConfigError> {
        let mut merged = Table::new();
        let mut outcome = Ok(Self::default());
        for (path, text) in texts {
            let table = text
                .parse::<Table>()
                .map_err(|error| parse_error(path, &error))?;
            lay_over(&mut merged, table);
            match merged.clone().try_into::<Self>() {
                Ok(config) => outcome = Ok(config),
                Err(error) if outcome.is_ok() => {
                    // What the text says by itself can be told with its line.
                    let own = toml::from_str::<Self>(text).err();
                    outcome = Err(parse_error(path, &own.unwrap_or(error)));
                }
                Err(_) => {}
            }
        }
        outcome
    }
}

/// The files that are laid over `main`, in the order in which that is done. Hidden ones are passed over, as they
/// are by a shell.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = main.with_extension("d");
    let list_error = |source| ConfigError::List {
        path: directory.clone(),
        source,
    };
    let entries = match std::fs::read_dir(&directory) {
        _ if directory == main => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(list_error)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(list_error)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            found.push(path);
        }
        if found.len() > CONFIG_DROP_INS_MAX {
            return Err(ConfigError::TooMany { path: directory });
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Tables become one; of everything else the upper one stays.
fn lay_over(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => lay_over(lower, upper),
            (_, value) => drop(lower.insert(key, value)),
        }
    }
}

fn read_error(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Read {
        path: path.to_owned(),
        source,
    }
}

fn parse_error(path: &Path, error: &toml::de::Error) -> ConfigError {
    ConfigError::Parse {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files, and what is read from the one named first.
    fn read(files: &[(&str, &str)]) -> Result<Config, String> {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let config = Config::read(Some(&temp.path().join(files[0].0)));
        config.map_err(|error| error.to_string())
    }

    #[test]
    fn files_beside_the_main_one_are_laid_over_it_in_order_of_their_names() {
        let config = read(&[
            ("a.toml", "mtu = 1400\n[bridge]\nipv6 = true\ndevice = 'a'\n[dns]\nservers = ['10.0.0.1', '10.0.0.2']"),
            ("a.d/20.toml", "mtu = 1300\n[bridge]\ndevice = 'c'"),
            ("a.d/10.toml", "mtu = 1200\n[bridge]\ndevice = 'b'\nicc = false\n[dns]\nservers = ['10.0.0.3']"),
            ("a.d/.30.toml", "mtu = 1100"),
            ("a.d/40.toml.old", "mtu = 1000"),
            ("b.d/50.toml", "mtu = 900"),
        ])
        .unwrap();
        assert_eq!(config.mtu, Some(1300));
        assert_eq!(config.bridge.device, "c");
        assert!(config.bridge.ipv6 && !config.bridge.icc);
        assert_eq!(
            config.dns.servers,
            ["10.0.0.3".parse::<std::net::IpAddr>().unwrap()]
        );
    }

    #[test]
    fn an_error_names_the_file_that_is_at_fault() {
        for (upper, word) in [
            ("[bridge]\ncolour = 1", "colour"),
            ("mtu = 'x'", "line 1"),
            ("mtu =", "line 1"),
            ("bridge = 1", "line 1"),
            // Only together with the file below it is this without a place to listen at.
            ("[tcp]\nca = '/ca'", "listen"),
        ] {
            let error = read(&[
                ("a.toml", "mtu = 1400"),
                ("a.d/1.toml", "mtu = 1401"),
                ("a.d/2.toml", upper),
                ("a.d/3.toml", "ip-forward = false"),
            ])
            .unwrap_err();
            assert!(error.contains("/a.d/2.toml "), "{upper}: {error}");
            assert!(error.contains(word), "{upper}: {error}");
        }
        let error = read(&[("a.toml", "colour = 1"), ("a.d/1.toml", "mtu = 1")]).unwrap_err();
        assert!(error.contains("/a.toml "), "{error}");
    }

    #[test]
    fn files_may_be_complete_only_together() {
        let config = read(&[
            ("a.toml", "[tcp]\nca = '/ca'"),
            ("a.d/1.toml", "[tcp]\nlisten = '127.0.0.1:1'"),
        ]);
        let tcp = config.unwrap().tcp.unwrap();
        assert_eq!(
            (tcp.ca, tcp.listen.as_str()),
            (Some("/ca".into()), "127.0.0.1:1")
        );
    }

    #[test]
    fn a_main_file_may_be_without_more_and_must_exist_when_it_is_named() {
        assert_eq!(read(&[("a.toml", "")]), Ok(Config::default()));
        assert_eq!(read(&[("a.d", "mtu = 1400")]).unwrap().mtu, Some(1400));
        let error = Config::read(Some(Path::new("/no/such/file.toml"))).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error}");
        let error = read(&[("a.toml", ""), ("a.d/1.toml/x", "")]).unwrap_err();
        assert!(error.contains("/a.d/1.toml "), "{error}");
        let error = read(&[("b.toml", ""), ("b.d", "")]).unwrap_err();
        assert!(error.contains("/b.d "), "{error}");
    }

    #[test]
    fn files_beside_the_main_one_have_a_limit() {
        let names = |count: usize| -> Vec<String> {
            let more = (0..count).map(|n| format!("a.d/{n:03}.toml"));
            std::iter::once("a.toml".to_owned()).chain(more).collect()
        };
        let read_all = |names: &[String]| {
            let files: Vec<_> = names
                .iter()
                .map(|name| (name.as_str(), "mtu = 1"))
                .collect();
            read(&files)
        };
        read_all(&names(CONFIG_DROP_INS_MAX)).unwrap();
        let error = read_all(&names(CONFIG_DROP_INS_MAX + 1)).unwrap_err();
        assert!(error.contains("more than 64"), "{error}");
    }
}

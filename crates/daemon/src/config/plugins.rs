//! The settings for plugins of others.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::limits::{PLUGIN_CALL_SECONDS_MAX, PLUGIN_CALL_TIMEOUT, PLUGIN_PLACES_MAX};
use crate::plugin::discovery::Places;

/// Flags for plugins of others.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PluginFlags {
    /// Directory in which plugins have their sockets (repeatable).
    #[arg(long = "plugin-sockets", value_name = "DIR")]
    pub sockets: Vec<PathBuf>,
    /// Directory of files that say where plugins are (repeatable).
    #[arg(long = "plugin-files", value_name = "DIR")]
    pub files: Vec<PathBuf>,
    /// Seconds that a plugin may take for one call.
    #[arg(long = "plugin-call-timeout-seconds", value_name = "SECONDS")]
    pub call_timeout_seconds: Option<u32>,
}

/// Where plugins of others are, and how long they are waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Plugins {
    /// Directories of sockets, such as `NAME.sock`.
    pub sockets: Vec<PathBuf>,
    /// Directories of files that say where a plugin is, such as `NAME.spec` and `NAME.json`.
    pub files: Vec<PathBuf>,
    /// Seconds that a plugin may take for one call.
    pub call_timeout_seconds: u32,
}

impl Default for Plugins {
    fn default() -> Self {
        let usual = Places::default();
        let seconds = PLUGIN_CALL_TIMEOUT.as_secs();
        Self {
            sockets: vec![usual.sockets],
            files: usual.files,
            call_timeout_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        }
    }
}

impl Plugins {
    pub(super) fn override_with(&mut self, flags: &PluginFlags) {
        if !flags.sockets.is_empty() {
            self.sockets.clone_from(&flags.sockets);
        }
        if !flags.files.is_empty() {
            self.files.clone_from(&flags.files);
        }
        super::set(
            &mut self.call_timeout_seconds,
            flags.call_timeout_seconds.as_ref(),
        );
    }

    /// Where plugins are looked for, in this order: at all sockets, then in files.
    pub(crate) fn places(&self) -> Vec<Places> {
        let mut places: Vec<Places> = self
            .sockets
            .iter()
            .map(|sockets| Places {
                sockets: sockets.clone(),
                files: Vec::new(),
            })
            .collect();
        if let Some(last) = places.last_mut() {
            last.files.clone_from(&self.files);
        }
        places
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let value = |setting, reason: String| Err(ConfigError::Value { setting, reason });
        for (setting, directories) in [
            ("plugins.sockets", &self.sockets),
            ("plugins.files", &self.files),
        ] {
            if let Some(path) = directories.iter().find(|path| !path.is_absolute()) {
                return value(
                    setting,
                    format!("{} is not an absolute path", path.display()),
                );
            }
            if directories.len() > PLUGIN_PLACES_MAX {
                return value(setting, format!("at most {PLUGIN_PLACES_MAX} directories"));
            }
        }
        if self.sockets.is_empty() {
            return value("plugins.sockets", "name at least one directory".to_owned());
        }
        if !(1..=PLUGIN_CALL_SECONDS_MAX).contains(&self.call_timeout_seconds) {
            let reason = format!("between 1 and {PLUGIN_CALL_SECONDS_MAX} seconds");
            return value("plugins.call-timeout-seconds", reason);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Plugins)) -> String {
        let mut plugins = Plugins::default();
        change(&mut plugins);
        plugins
            .check()
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn times_and_directories_have_limits() {
        let directories = |count: usize| vec![PathBuf::from("/x"); count];
        assert_eq!(refused(|_| ()), "");
        assert_eq!(refused(|p| p.sockets = directories(PLUGIN_PLACES_MAX)), "");
        let many = refused(|p| p.files = directories(PLUGIN_PLACES_MAX + 1));
        assert!(many.contains("plugins.files"), "{many}");
        assert!(refused(|p| p.sockets.clear()).contains("at least one"));
        assert!(refused(|p| p.files = vec!["x".into()]).contains("absolute"));
        assert_eq!(
            refused(|p| p.call_timeout_seconds = PLUGIN_CALL_SECONDS_MAX),
            ""
        );
        for seconds in [0, PLUGIN_CALL_SECONDS_MAX + 1] {
            let told = refused(|p| p.call_timeout_seconds = seconds);
            assert!(told.contains("call-timeout-seconds"), "{told}");
        }
    }

    #[test]
    fn sockets_are_looked_at_before_files() {
        let plugins = Plugins {
            sockets: vec!["/a".into(), "/b".into()],
            files: vec!["/c".into()],
            call_timeout_seconds: 1,
        };
        let places = plugins.places();
        assert_eq!(places.len(), 2);
        assert!(places[0].files.is_empty());
        assert_eq!(places[1].files, [PathBuf::from("/c")]);
    }
}

//! `--filter KEY=VALUE` of lists.

use tombolo_api::{NetworkFilter, SandboxFilter};

use crate::args::value::KeyValue;

/// Why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// The list has no such filter.
    #[error("unknown filter {key}; known are {known}")]
    Unknown {
        /// The key.
        key: String,
        /// The keys that there are.
        known: &'static str,
    },
    /// A key that may be given once is given twice.
    #[error("filter {0} is given twice")]
    Twice(String),
}

/// The filter that travels to the daemon.
pub(crate) fn network_filter(pairs: Vec<KeyValue>) -> Result<NetworkFilter, FilterError> {
    let mut filter = NetworkFilter::default();
    for KeyValue { key, value } in pairs {
        match key.as_str() {
            "name" => put(&mut filter.name, key, value)?,
            "driver" => put(&mut filter.driver, key, value)?,
            "label" => filter.labels.push(value),
            _ => {
                return Err(FilterError::Unknown {
                    key,
                    known: "name, driver, label",
                });
            }
        }
    }
    Ok(filter)
}

/// The filter that travels to the daemon.
pub(crate) fn sandbox_filter(pairs: Vec<KeyValue>) -> Result<SandboxFilter, FilterError> {
    let mut filter = SandboxFilter::default();
    for KeyValue { key, value } in pairs {
        match key.as_str() {
            "name" => put(&mut filter.name, key, value)?,
            "label" => filter.labels.push(value),
            _ => {
                return Err(FilterError::Unknown {
                    key,
                    known: "name, label",
                });
            }
        }
    }
    Ok(filter)
}

fn put(slot: &mut Option<String>, key: String, value: String) -> Result<(), FilterError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FilterError::Twice(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::value::key_with_value;

    fn pairs(texts: &[&str]) -> Vec<KeyValue> {
        texts
            .iter()
            .map(|text| key_with_value(text).unwrap())
            .collect()
    }

    #[test]
    fn filters_are_read_and_unknown_ones_refused() {
        let given = pairs(&["name=a", "label=x=1", "driver=bridge", "label=y"]);
        let filter = network_filter(given).unwrap();
        assert_eq!(filter.name.as_deref(), Some("a"));
        assert_eq!(filter.driver.as_deref(), Some("bridge"));
        assert_eq!(filter.labels, ["x=1", "y"]);
        let twice = network_filter(pairs(&["name=a", "name=b"]));
        assert_eq!(twice, Err(FilterError::Twice("name".into())));
        let unknown = sandbox_filter(pairs(&["driver=bridge"]));
        assert!(matches!(unknown, Err(FilterError::Unknown { .. })));
    }
}

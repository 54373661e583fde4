//! The words of the plugin protocol: each request and answer as engines and plugins write them.
//!
//! Both sides are written in Go as a rule, so these read as Go does: keys are taken in any case, fields that nobody knows
//! are passed over, those that are missing or `null` are empty, and a value of another type is an error.

pub(crate) mod ipam;
pub(crate) mod method;
pub(crate) mod network;
pub(crate) mod options;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Declares messages: fields with their names on the wire. What is missing or `null` is the default of its type.
macro_rules! messages {
    ($($(#[$about:meta])+ $name:ident {
        $($(#[$meta:meta])* $field:ident: $kind:ty = $key:literal,)*
    })+) => {$(
        $(#[$about])+
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(remote = "Self")]
        pub(crate) struct $name {
            $(
                $(#[$meta])*
                #[serde(
                    rename = $key,
                    default,
                    deserialize_with = "crate::plugin::wire::null_is_default"
                )]
                pub(crate) $field: $kind,
            )*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, writer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
                // The derived reader alone would also take the fields in order from a list.
                let object = crate::plugin::wire::null_is_default(reader)?;
                let object = crate::plugin::wire::folded(object, &[$($key),*]);
                Self::deserialize(object).map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(super) use messages;

messages! {
    /// What a plugin answers first: which subsystems it has.
    Activated {
        /// Names such as `NetworkDriver`.
        implements: Vec<String> = "Implements",
    }

    /// An answer that says only that it is done.
    Done {}

    /// The answer when something could not be done. Network drivers say why under one key, address allocators under
    /// another; this reads either, and writes both, as an engine looks at one of them.
    Failure {
        /// Why, where engines look in answers of network drivers, and in all that are not 200.
        #[serde(skip_serializing_if = "String::is_empty")]
        err: String = "Err",
        /// Why, where engines look in answers of address allocators.
        #[serde(skip_serializing_if = "String::is_empty")]
        error: String = "Error",
    }
}

impl Failure {
    /// The failure for a reason.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        let err = reason.into();
        let error = err.clone();
        Self { err, error }
    }

    /// The reason; none if this comes from an answer that tells of no failure.
    pub(crate) fn reason(&self) -> Option<&str> {
        [&self.err, &self.error]
            .into_iter()
            .find(|reason| !reason.is_empty())
            .map(String::as_str)
    }
}

/// Reads a message. Only an object is one, or `null`, which is an empty object.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text)
}

/// Reads typed options from the free map that a request holds.
pub(crate) fn read_object<T: DeserializeOwned>(
    object: Map<String, Value>,
) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::Object(object))
}

/// Writes typed options as the free map that a request holds.
pub(crate) fn write_object(
    options: &impl Serialize,
) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::to_value(options).and_then(serde_json::from_value)
}

/// The same object with its keys as they are known: Go takes them in any case, and prefers those that are written right.
pub(super) fn folded(object: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    let (right, other): (Vec<_>, Vec<_>) = object
        .into_iter()
        .partition(|(key, _)| known.contains(&key.as_str()));
    let mut folded: Map<String, Value> = right.into_iter().collect();
    for (key, value) in other {
        let right = known.iter().find(|known| known.eq_ignore_ascii_case(&key));
        let key = right.map_or(key, |right| (*right).to_owned());
        folded.entry(key).or_insert(value);
    }
    folded
}

/// Reads a value of which `null` is the default, as Go writes lists and maps that were never made.
pub(super) fn null_is_default<'de, D, T>(reader: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(reader).map(Option::unwrap_or_default)
}

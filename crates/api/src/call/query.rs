//! The words of a query.

use std::collections::BTreeMap;

use form_urlencoded::Serializer;

use crate::error::{ApiError, ErrorCode};

/// A query that has been read, of which words are taken.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    /// Reads a query, which may hold only these words.
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self, ApiError> {
        let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (word, value) in form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&word.as_ref()) {
                let error = ApiError::new(
                    ErrorCode::UnknownParameter,
                    format!("this call takes no {word:?} in its query"),
                );
                return Err(match known {
                    [] => error,
                    _ => error.hint(format!("it takes: {}", known.join(", "))),
                });
            }
            words
                .entry(word.into_owned())
                .or_default()
                .push(value.into_owned());
        }
        Ok(Self(words))
    }

    /// Every value of a word.
    pub(super) fn all(&mut self, word: &str) -> Vec<String> {
        self.0.remove(word).unwrap_or_default()
    }

    /// The value of a word that is given at most once.
    pub(super) fn one(&mut self, word: &str) -> Result<Option<String>, ApiError> {
        let mut values = self.all(word);
        if values.len() > 1 {
            let message = format!("{word:?} stands more than once in the query");
            return Err(ApiError::new(ErrorCode::UnknownParameter, message));
        }
        Ok(values.pop())
    }

    /// The value of a word that must be given.
    pub(super) fn needed(&mut self, word: &str) -> Result<String, ApiError> {
        let value = self.one(word)?.filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            let message = format!("{word:?} is missing from the query");
            ApiError::new(ErrorCode::InvalidParameter, message)
        })
    }

    /// Whether a flag is set: `true` or `1`, or the word alone.
    pub(super) fn flag(&mut self, word: &str) -> Result<bool, ApiError> {
        match self.one(word)?.as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(value) => Err(ApiError::new(
                ErrorCode::InvalidParameter,
                format!("{word:?} in the query is {value:?}, which is neither true nor false"),
            )),
        }
    }
}

/// Writes a query: each word with its values, in order.
pub(super) fn write<'a>(words: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut serializer = Serializer::new(String::new());
    serializer.extend_pairs(words);
    serializer.finish()
}

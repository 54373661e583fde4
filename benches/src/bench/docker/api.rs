//! Requests to an engine's own API. Its command line would be measured with every start.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// Longest wait for an answer, or for a part of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request whose answer has not been read.
pub(super) struct Request {
    stream: UnixStream,
    what: String,
}

impl Request {
    /// Sends a request.
    pub(super) fn send(socket: &Path, what: &str, kind: &str, body: &[u8]) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // To this version of HTTP the answer comes in one piece and ends with the connection.
        let head = format!(
            "{what} HTTP/1.0\r\nHost: engine\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let what = what.to_owned();
        Ok(Self { stream, what })
    }

    /// The text of the answer, which must not be a refusal.
    pub(super) fn answer(mut self) -> anyhow::Result<String> {
        let mut answer = Vec::new();
        let read = self.stream.read_to_end(&mut answer);
        read.with_context(|| format!("{}: no answer", self.what))?;
        let answer = String::from_utf8_lossy(&answer);
        let parts = parts(&answer);
        let (status, text) = parts.with_context(|| format!("{}: not HTTP", self.what))?;
        if !(200..300).contains(&status) {
            bail!("{}: {status}: {}", self.what, text.trim());
        }
        Ok(text.to_owned())
    }
}

/// Sends a request with a value and reads that of the answer; null is nothing.
pub(super) fn call(socket: &Path, what: &str, value: &Value) -> anyhow::Result<Value> {
    let body = match value {
        Value::Null => String::new(),
        value => value.to_string(),
    };
    let request = Request::send(socket, what, "application/json", body.as_bytes())?;
    let text = request.answer()?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("{what}: the answer is no JSON"))
}

/// Status and body of an answer.
fn parts(answer: &str) -> Option<(u16, &str)> {
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = "HTTP/1.0 201 Created\r\nApi-Version: 1.41\r\n\r\n{\"Id\":\"7\"}\n";
        assert_eq!(parts(answer), Some((201, "{\"Id\":\"7\"}\n")));
        assert_eq!(parts("HTTP/1.0 204 No Content\r\n\r\n"), Some((204, "")));
        assert_eq!(parts("hello"), None);
    }
}

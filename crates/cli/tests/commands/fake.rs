//! A daemon on a Unix socket that answers as it is told, and a host to run commands on.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tombolo_api::{ApiError, ErrorCode, Operation, Request, Response};

type Answer = dyn FnMut(Request) -> Result<Response, ApiError> + Send;

/// A run directory with a daemon's socket in it, and everything that was asked of that daemon.
pub(crate) struct Host {
    pub(crate) temp: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Host {
    /// A host whose daemon gives these answers.
    pub(crate) fn answering(
        answer: impl FnMut(Request) -> Result<Response, ApiError> + Send + 'static,
    ) -> Self {
        let host = Self::silent();
        host.answer(answer);
        host
    }

    /// Gives the host a daemon with these answers.
    pub(crate) fn answer(
        &self,
        answer: impl FnMut(Request) -> Result<Response, ApiError> + Send + 'static,
    ) {
        let listener = UnixListener::bind(self.temp.path().join("tombolo.sock")).unwrap();
        let answer: Arc<Mutex<Box<Answer>>> = Arc::new(Mutex::new(Box::new(answer)));
        let asked = Arc::clone(&self.asked);
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                thread::spawn(move || serve(stream, &answer, &asked));
            }
        });
    }

    /// A host without a daemon.
    pub(crate) fn silent() -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
            asked: Arc::default(),
        }
    }

    /// A command line on this host, which never starts a daemon.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .arg("--run-dir")
            .arg(self.temp.path())
            .arg("--no-autostart")
            .args(words);
        command.env_remove("TOMBOLO_HOST").stdin(Stdio::null());
        command
    }

    /// Exit code, standard output and standard error of a command line.
    pub(crate) fn tombolo(&self, words: &[&str]) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Standard output of a command line that must work.
    pub(crate) fn output(&self, words: &[&str]) -> String {
        let (code, out, err) = self.tombolo(words);
        assert_eq!(code, 0, "{words:?}: {err}");
        out
    }

    /// What was asked of the daemon since this was last called.
    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// An error as the daemon gives it.
pub(crate) fn refusal(code: ErrorCode, message: &str) -> ApiError {
    ApiError::new(code, message)
}

/// The example that stands in for the program.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/commands");
    assert!(path.exists(), "{} is built with the tests", path.display());
    path
}

fn serve(stream: UnixStream, answer: &Mutex<Box<Answer>>, asked: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader) {
        asked.lock().unwrap().push(request.clone());
        let operation = request.operation();
        let (status, body) = match (answer.lock().unwrap())(request) {
            Ok(Response::Done) => (204, Vec::new()),
            Ok(response) => {
                assert!(
                    response.answers(operation),
                    "{operation:?} is not answered by this"
                );
                (
                    operation.route().reply.http_status(),
                    serde_json::to_vec(&response).unwrap(),
                )
            }
            Err(error) => (error.http_status(), serde_json::to_vec(&error).unwrap()),
        };
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if writer
            .write_all(&[head.into_bytes(), body].concat())
            .is_err()
        {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target
        .split_once('?')
        .map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let (operation, reference) = route(&method, path).expect("a path of the API");
    Some(Request::decode(operation, reference, query, &body).unwrap())
}

fn route<'a>(method: &str, path: &'a str) -> Option<(Operation, Option<&'a str>)> {
    let given: Vec<&str> = path.split('/').collect();
    let matches = |operation: &Operation, exact: bool| {
        let route = operation.route();
        let parts: Vec<&str> = route.path.split('/').collect();
        route.method.as_str() == method
            && parts.len() == given.len()
            && parts
                .iter()
                .zip(&given)
                .all(|(part, given)| part == given || (!exact && *part == "{reference}"))
    };
    let find = |exact| {
        Operation::ALL
            .iter()
            .copied()
            .find(|operation| matches(operation, exact))
    };
    let operation = find(true).or_else(|| find(false))?;
    let parts = operation.route().path;
    let index = parts.split('/').position(|part| part == "{reference}");
    Some((operation, index.map(|index| given[index])))
}

//! The process runtime as a program of its own: `runtime STATE_DIR run|exec|logs|stop|rm|ps ...`.
//!
//! `run` and `exec` take their spec as JSON, so that everything the runtime can do can be tried.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tombolo_cli::run::{self, ExecSpec, LogQuery, ProcessSpec, StateDir};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let word = args.next().unwrap_or_default();
    match word.to_str() {
        Some(run::SHIM_WORD) => return run::shim_main(args),
        Some(run::INIT_WORD) => return run::init_main(args),
        Some(run::EXEC_WORD) => return run::exec_main(args),
        _ => {}
    }
    let words: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match command(&StateDir::new(word), &words) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err((code, message)) => {
            let _ = writeln!(io::stderr(), "runtime: {message}");
            ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
        }
    }
}

fn command(states: &StateDir, words: &[&str]) -> Result<i32, (i32, String)> {
    match *words {
        ["run", spec] => {
            let spec: ProcessSpec = parse(spec)?;
            states.create(&spec).map_err(|error| setup(&error))?;
            states
                .run_foreground(&spec.id)
                .map_err(|error| (error.code(), text(&error)))
        }
        ["start", spec] => {
            let spec: ProcessSpec = parse(spec)?;
            states.create(&spec).map_err(|error| setup(&error))?;
            states
                .start(&spec.id)
                .map_err(|error| (error.code(), text(&error)))?;
            Ok(0)
        }
        ["exec", id, spec] => {
            let spec: ExecSpec = parse(spec)?;
            states
                .exec(id, &spec)
                .map_err(|error| (error.code(), text(&error)))
        }
        ["attach", id] => states.attach(id).map_err(|error| setup(&error)),
        ["logs", id] => logs(states, id, LogQuery::default()),
        ["logs", "-f", id] => logs(
            states,
            id,
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        ),
        ["stop", id] => {
            states
                .stop(id, Duration::from_secs(2))
                .map_err(|error| setup(&error))?;
            Ok(0)
        }
        ["rm", id] => {
            states.remove(id, true).map_err(|error| setup(&error))?;
            Ok(0)
        }
        ["ps"] => {
            for entry in states.list().map_err(|error| setup(&error))? {
                let line = serde_json::to_string(&entry).map_err(|error| setup(&error))?;
                writeln!(io::stdout(), "{line}").map_err(|error| setup(&error))?;
            }
            Ok(0)
        }
        // Stands in for the front end's command that the exit hook calls.
        ["append", file, line] => {
            let open = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(file);
            open.and_then(|mut file| writeln!(file, "{line}"))
                .map_err(|error| setup(&error))?;
            Ok(0)
        }
        ["fail"] => Ok(3),
        _ => Err((
            2,
            "usage: runtime STATE_DIR run|start|exec|attach|logs|stop|rm|ps".into(),
        )),
    }
}

fn logs(states: &StateDir, id: &str, query: LogQuery) -> Result<i32, (i32, String)> {
    states
        .logs(id, query, &mut io::stdout(), &mut io::stderr())
        .map_err(|error| setup(&error))?;
    Ok(0)
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, (i32, String)> {
    serde_json::from_str(json).map_err(|error| setup(&error))
}

fn setup(error: &dyn Error) -> (i32, String) {
    (run::SETUP_FAILED, text(error))
}

fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! `tombolo logs`.

use clap::Args;

use crate::args::time::{Moment, moment};
use crate::context::Context;
use crate::error::CommandError;
use crate::output::now_ms;
use crate::run::LogQuery;

/// Which lines of whose log to show.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the process ends
    #[arg(short, long)]
    follow: bool,
    /// At most this many of the latest lines, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Only lines since a time: RFC 3339, seconds since 1970, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Start each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Name or id of the process
    name: String,
}

/// How many lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tail(Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        number => number
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|error| error.to_string()),
    }
}

/// Writes the log of a process, each line to where the process wrote it.
pub(super) fn execute(args: LogsArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let id = context.states.find(&args.name)?;
    let query = LogQuery {
        follow: args.follow,
        tail: args.tail.0,
        since_ms: args.since.map(|since| since.at_ms(now_ms())),
        timestamps: args.timestamps,
    };
    Ok(context.states.logs(&id, query, context.out, context.err)?)
}

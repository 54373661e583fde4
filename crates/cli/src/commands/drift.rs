//! `tombolo drift`, `tombolo repair` and `tombolo doctor`.

use clap::Args;
use tombolo_api::{ErrorKind, FindingLevel, OperationView};

use crate::context::Context;
use crate::error::CommandError;
use crate::output::{printable, write_json};

/// How it is written.
#[derive(Debug, Args)]
pub(crate) struct SeeingArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what would make the kernel what it should be.
pub(super) fn drift(args: &SeeingArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let drift = context.client()?.drift()?;
    if args.json {
        return Ok(write_json(context.out, &drift)?);
    }
    write_operations(&drift.operations, "everything is as it should be", context)
}

/// Makes the kernel what it should be and prints what that took. Fails when something could not be done.
pub(super) fn repair(args: &SeeingArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    let report = context.client()?.repair()?;
    if args.json {
        write_json(context.out, &report)?;
    } else {
        write_operations(
            &report.operations,
            "everything was as it should be",
            context,
        )?;
        for failure in &report.failures {
            let (what, why) = (&failure.operation.text, &failure.message);
            writeln!(
                context.err,
                "tombolo: {} failed: {}",
                printable(what),
                printable(why)
            )?;
        }
    }
    Ok(if report.failures.is_empty() {
        0
    } else {
        ErrorKind::Internal.exit_code()
    })
}

/// Prints what keeps networks from working. Fails when something does not work.
pub(super) fn doctor(args: &SeeingArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    let report = context.client()?.doctor()?;
    if args.json {
        write_json(context.out, &report)?;
    } else {
        for finding in &report.findings {
            let level = match finding.level {
                FindingLevel::Ok => "ok",
                FindingLevel::Warning => "warning",
                FindingLevel::Error => "error",
            };
            let (topic, text) = (printable(&finding.topic), printable(&finding.text));
            writeln!(context.out, "{level:<7}  {topic}: {text}")?;
            if let Some(hint) = &finding.hint {
                writeln!(context.out, "         {}", printable(hint))?;
            }
        }
    }
    let broken = report
        .findings
        .iter()
        .any(|finding| finding.level == FindingLevel::Error);
    Ok(if broken {
        ErrorKind::Internal.exit_code()
    } else {
        0
    })
}

/// Writes operations, one on each line, or says on standard error that there are none.
pub(super) fn write_operations(
    operations: &[OperationView],
    nothing: &str,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    for operation in operations {
        writeln!(context.out, "{}", printable(&operation.text))?;
    }
    if operations.is_empty() {
        writeln!(context.err, "tombolo: {nothing}")?;
    }
    Ok(())
}

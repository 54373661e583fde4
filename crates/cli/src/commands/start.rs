//! `tombolo start`.

use clap::Args;

use super::for_each;
use super::stop::is_ended;
use super::world::{World, stop_sandbox};
use crate::context::Context;
use crate::error::CommandError;

/// Which processes to start.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Names or ids of processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Starts processes and prints their names.
pub(super) fn execute(args: &StartArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    for_each(&args.names, context, |name, context| {
        let id = context.states.find(name)?;
        start(&id, context)
    })
}

/// Starts a process that does not run, on its networks and with its addresses.
pub(super) fn start(id: &str, context: &mut Context<'_>) -> Result<(), CommandError> {
    if !is_ended(id, context)? {
        return Ok(());
    }
    let entry = context.states.entry(id)?;
    let world = World::again(&entry, context)?;
    let started = world
        .link(&context.states.dir(id))
        .and_then(|()| Ok(context.states.set_link_env(id, &world.link_env)?))
        .and_then(|()| Ok(context.states.start(id)?));
    if started.is_err() && world.owner.is_none() {
        // The shim tells the daemon of the end, unless there was none to do so.
        stop_sandbox(id, context.client()?)?;
    }
    started
}

//! The reference of the command line, written from the flags themselves.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

/// The reference of every command as Markdown, as kept in `docs/reference/cli.md`.
#[must_use]
pub fn reference() -> String {
    let mut root = crate::command();
    root.build();
    let mut text = String::from(
        "# Command line\n\nThis page is generated from the program: `TOMBOLO_UPDATE=1 cargo nextest run -p tombolo-cli \
         reference` writes it.\n\nData goes to standard output, messages go to standard error.\n\n\
         | exit code | meaning |\n|---|---|\n| 0 | it worked |\n| 1 | the daemon or the kernel failed |\n\
         | 2 | the request can never work as it is |\n| 3 | the request cannot work as things are |\n\
         | 4 | something needed is not there now, such as the daemon |\n| 5 | there is no such object |\n\
         | 125, 126, 127 | of `run` and `exec`: setup failed, program not executable, program not found |\n",
    );
    write_command(&mut text, "tombolo", &root);
    text
}

fn write_command(text: &mut String, path: &str, command: &Command) {
    let is_group = command.get_subcommands().next().is_some();
    push(text, format_args!("\n## {path}\n"));
    if let Some(about) = command.get_about() {
        push(text, format_args!("\n{about}.\n"));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    push(text, format_args!("\n```text\n{usage}\n```\n"));
    let mut aliases = command.get_visible_aliases().peekable();
    if aliases.peek().is_some() {
        let names: Vec<String> = aliases.map(|name| format!("`{name}`")).collect();
        push(text, format_args!("\nAlso called {}.\n", names.join(", ")));
    }
    let shown =
        |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    let args: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if !args.is_empty() {
        push(text, format_args!("\n| argument | meaning |\n|---|---|\n"));
        for arg in args {
            push(text, format_args!("| {} | {} |\n", name(arg), meaning(arg)));
        }
    }
    if is_group {
        for child in command
            .get_subcommands()
            .filter(|child| !child.is_hide_set())
        {
            if child.get_name() != "help" {
                write_command(text, &format!("{path} {}", child.get_name()), child);
            }
        }
    }
}

fn name(arg: &Arg) -> String {
    let values: Vec<String> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    let values = values.join(" ");
    if arg.is_positional() {
        let many = if arg
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1)
        {
            "..."
        } else {
            ""
        };
        return format!("`{values}{many}`");
    }
    let mut forms: Vec<String> = arg
        .get_short()
        .map(|short| format!("`-{short}`"))
        .into_iter()
        .collect();
    let longs = arg
        .get_long()
        .into_iter()
        .chain(arg.get_visible_aliases().unwrap_or_default());
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    forms.extend(
        longs.map(|long| match (takes_value, arg.is_require_equals_set()) {
            (false, _) => format!("`--{long}`"),
            (true, true) => format!("`--{long}[={values}]`"),
            (true, false) => format!("`--{long} {values}`"),
        }),
    );
    forms.join(", ").replace('|', "\\|")
}

fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    if takes_value && !defaults.is_empty() {
        push(
            &mut text,
            format_args!("; `{}` when left out", defaults.join(" ")),
        );
    }
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if takes_value && !possible.is_empty() && !arg.is_require_equals_set() {
        push(&mut text, format_args!("; one of {}", possible.join(", ")));
    }
    if let Some(variable) = arg.get_env() {
        push(
            &mut text,
            format_args!("; also the variable `{}`", variable.to_string_lossy()),
        );
    }
    text.replace('|', "\\|")
}

fn push(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(words);
}

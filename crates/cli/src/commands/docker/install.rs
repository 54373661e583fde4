//! `tombolo docker install`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::files::{
    CONFIG, Form, PACKAGED_UNIT_DIRS, Piece, Standing, UNIT_DIR, UNITS, made_before, under,
};
use super::staged::Staged;
use crate::context::Context;
use crate::error::CommandError;

/// Where our program is looked for by our unit.
const PROGRAM: &str = "/usr/bin/tombolo";

/// What to write, and where.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Remove what was written; networks and containers stay
    #[arg(long, conflicts_with_all = ["spec", "json"])]
    uninstall: bool,
    /// Keep the plugin's socket out of Docker's directory, and say where it is in a .spec file
    #[arg(long, conflicts_with = "json")]
    spec: bool,
    /// The same with a .json file
    #[arg(long)]
    json: bool,
    /// Also replace or remove what was written and then changed by hand
    #[arg(short, long)]
    force: bool,
    /// Directory in which all paths begin, such as that of an image
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Why nothing is installed, or not everything removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The directory in which all paths begin cannot be used.
    #[error("cannot use {path} as the root directory", path = path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be looked at.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of that name is somebody else's.
    #[error("{path} was not written by `tombolo docker install`; move it away first, nothing was changed", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files cannot be given their names.
    #[error("cannot put the files into their places")]
    Keep(#[source] io::Error),
    /// A file cannot be removed.
    #[error("cannot remove {path}", path = path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is going to be done, decided before anything is.
#[derive(Debug, Default)]
struct Plan {
    writes: Vec<Piece>,
    removals: Vec<PathBuf>,
    /// What is told of each file, once it is done.
    lines: Vec<String>,
}

/// What was done.
#[derive(Debug)]
struct Done {
    /// What is told of each file.
    lines: Vec<String>,
    /// Whether anything is other than before.
    is_changed: bool,
    /// The commands to type.
    next: Vec<String>,
}

/// Carries out the command.
pub(super) fn execute(args: &InstallArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let root_error = |source| InstallError::Root {
        path: args.root.clone(),
        source,
    };
    fs::read_dir(&args.root).map_err(root_error)?;
    let done = if args.uninstall {
        uninstall(args)?
    } else {
        install(args)?
    };
    for line in done.lines {
        writeln!(context.out, "{line}")?;
    }
    if !done.is_changed {
        return Ok(writeln!(context.out, "nothing was changed")?);
    }
    if args.uninstall {
        writeln!(context.out, "networks and containers are as they were")?;
    }
    if !done.next.is_empty() {
        writeln!(context.out, "next:")?;
    }
    for command in done.next {
        writeln!(context.out, "  {command}")?;
    }
    Ok(())
}

/// Writes what is missing.
fn install(args: &InstallArgs) -> Result<Done, InstallError> {
    let form = match (args.spec, args.json) {
        (true, _) => Form::Spec,
        (_, true) => Form::Json,
        _ => Form::Socket,
    };
    let mut plan = Plan::default();
    plan.place(Piece::order(), args)?;
    for (name, text) in UNITS {
        plan.place_unit(name, text, args)?;
    }
    for other in [Form::Spec, Form::Json] {
        match other.pointer() {
            Some(piece) if other == form => plan.place(piece, args)?,
            Some(piece) => plan.replace_pointer(&piece, args)?,
            None => {}
        }
    }
    let mut made = made_before(&args.root).map_err(|source| InstallError::Read {
        path: under(&args.root, Path::new(CONFIG)),
        source,
    })?;
    let paths = plan.writes.iter().map(|piece| piece.path.as_path());
    for path in paths.chain([Path::new(CONFIG)]) {
        made.extend(missing_above(&args.root, path));
    }
    plan.place(Piece::config(form, &made), args)?;
    let is_changed = !plan.writes.is_empty() || !plan.removals.is_empty();
    plan.write(&args.root)?;
    plan.remove(&args.root)?;
    Ok(Done {
        lines: plan.lines,
        is_changed,
        next: after_install(&args.root),
    })
}

/// Removes what was written.
fn uninstall(args: &InstallArgs) -> Result<Done, InstallError> {
    let mut made = made_before(&args.root).map_err(|source| InstallError::Read {
        path: under(&args.root, Path::new(CONFIG)),
        source,
    })?;
    let mut plan = Plan::default();
    let units = UNITS.map(|(name, text)| Piece::unit(name, text));
    let pointers = [Form::Spec, Form::Json]
        .into_iter()
        .filter_map(Form::pointer);
    let fixed = [Piece::config(Form::Socket, &made), Piece::order()];
    let pieces: Vec<Piece> = fixed.into_iter().chain(units).chain(pointers).collect();
    for piece in &pieces {
        let path = under(&args.root, &piece.path);
        match standing(piece, &args.root)? {
            Standing::Missing => {}
            Standing::Same | Standing::Ours => plan.removals.push(piece.path.clone()),
            Standing::Changed if args.force => plan.removals.push(piece.path.clone()),
            Standing::Changed => plan.tell(&format!(
                "left alone {} (changed by hand; --force removes it)",
                path.display()
            )),
            Standing::Foreign => plan.tell(&format!(
                "left alone {} (not written by `tombolo docker install`)",
                path.display()
            )),
        }
    }
    plan.remove(&args.root)?;
    // What a file says that anybody may have changed is believed only of directories that are ours to make.
    made.retain(|made| pieces.iter().any(|piece| is_above(made, &piece.path)));
    plan.remove_directories(&args.root, &made);
    Ok(Done {
        is_changed: !plan.removals.is_empty(),
        next: after_uninstall(&args.root, &plan.removals),
        lines: plan.lines,
    })
}

impl Plan {
    fn tell(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }

    /// Decides what becomes of a file that is to be as it is given.
    fn place(&mut self, piece: Piece, args: &InstallArgs) -> Result<(), InstallError> {
        let path = under(&args.root, &piece.path);
        let shown = path.display();
        let (is_written, line) = match standing(&piece, &args.root)? {
            Standing::Missing => (true, format!("wrote {shown}")),
            Standing::Same => (false, format!("there already {shown}")),
            Standing::Ours => (true, format!("replaced {shown}")),
            Standing::Changed if args.force => (true, format!("replaced {shown}")),
            Standing::Changed => (
                false,
                format!("left alone {shown} (changed by hand; --force replaces it)"),
            ),
            Standing::Foreign => return Err(InstallError::Foreign { path }),
        };
        self.lines.push(line);
        if is_written {
            self.writes.push(piece);
        }
        Ok(())
    }

    /// The same for a unit, of which any other that is there is good enough.
    fn place_unit(
        &mut self,
        name: &str,
        text: &str,
        args: &InstallArgs,
    ) -> Result<(), InstallError> {
        let piece = Piece::unit(name, text);
        let standing = standing(&piece, &args.root)?;
        let packaged = PACKAGED_UNIT_DIRS.map(|directory| Path::new(directory).join(name));
        let mut packaged = packaged.map(|path| under(&args.root, &path)).into_iter();
        let packaged = packaged.find(|path| path.symlink_metadata().is_ok());
        match (standing, packaged) {
            (Standing::Foreign, _) => {
                let path = under(&args.root, &piece.path);
                self.tell(&format!("there already {}", path.display()));
                Ok(())
            }
            (Standing::Changed, Some(_)) | (_, None) => self.place(piece, args),
            (Standing::Missing | Standing::Same | Standing::Ours, Some(path)) => {
                self.tell(&format!("there already {}", path.display()));
                if standing != Standing::Missing {
                    // It would stand before the one of the package.
                    self.removals.push(piece.path);
                }
                Ok(())
            }
        }
    }

    /// Decides to remove what says where the socket is in another form than the one that is wanted now.
    fn replace_pointer(&mut self, piece: &Piece, args: &InstallArgs) -> Result<(), InstallError> {
        if standing(piece, &args.root)? == Standing::Same {
            self.removals.push(piece.path.clone());
        }
        Ok(())
    }

    fn write(&mut self, root: &Path) -> Result<(), InstallError> {
        let mut staged = Staged::default();
        for piece in &self.writes {
            let path = under(root, &piece.path);
            let written = staged.add(&path, &piece.content);
            written.map_err(|source| InstallError::Write { path, source })?;
        }
        staged.keep().map_err(InstallError::Keep)
    }

    fn remove(&mut self, root: &Path) -> Result<(), InstallError> {
        for path in &self.removals {
            let path = under(root, path);
            let line = format!("removed {}", path.display());
            fs::remove_file(&path).map_err(|source| InstallError::Remove { path, source })?;
            self.lines.push(line);
        }
        Ok(())
    }

    /// Removes those of these directories that are empty.
    fn remove_directories(&mut self, root: &Path, directories: &BTreeSet<PathBuf>) {
        for directory in directories.iter().rev() {
            let path = under(root, directory);
            // What is not empty has become somebody else's as well.
            if fs::remove_dir(&path).is_ok() {
                self.tell(&format!("removed {}", path.display()));
            }
        }
    }
}

fn standing(piece: &Piece, root: &Path) -> Result<Standing, InstallError> {
    piece.standing(root).map_err(|source| InstallError::Read {
        path: under(root, &piece.path),
        source,
    })
}

/// The directories above a path that are not there.
fn missing_above<'a>(root: &Path, path: &'a Path) -> impl Iterator<Item = PathBuf> + use<'a> {
    let root = root.to_owned();
    let above = path.ancestors().skip(1);
    above
        .take_while(move |path| !under(&root, path).exists())
        .map(Path::to_owned)
}

fn is_above(directory: &Path, path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .any(|ancestor| ancestor == directory && ancestor != Path::new("/"))
}

/// The commands to type after something was written.
fn after_install(root: &Path) -> Vec<String> {
    let mut next = Vec::new();
    if !under(root, Path::new(PROGRAM)).exists() {
        let own = std::env::current_exe().unwrap_or_else(|_| "tombolo".into());
        let to = under(root, Path::new(PROGRAM));
        next.push(format!("install {} {}", own.display(), to.display()));
    }
    let groups = fs::read_to_string(under(root, Path::new("/etc/group"))).unwrap_or_default();
    let at = root_flag(root);
    if !groups.lines().any(|line| line.starts_with("tombolo:")) {
        next.push(format!("groupadd{at} --system tombolo"));
    }
    let units = "tombolo.socket tombolo.service";
    if at.is_empty() {
        // One that runs already reads its configuration anew.
        next.push("systemctl daemon-reload".to_owned());
        next.push("systemctl try-restart tombolo.service".to_owned());
        next.push(format!("systemctl enable --now {units}"));
    } else {
        next.push(format!("systemctl{at} enable {units}"));
    }
    next.push(format!(
        "tombolo docker install --uninstall{at}   # to undo it"
    ));
    next
}

/// The commands to type after something was removed.
fn after_uninstall(root: &Path, removed: &[PathBuf]) -> Vec<String> {
    let at = root_flag(root);
    let is_unit = |path: &&PathBuf| path.parent() == Some(Path::new(UNIT_DIR));
    let units: Vec<&str> = removed
        .iter()
        .filter(is_unit)
        .filter_map(|path| path.file_name()?.to_str())
        .collect();
    let units = units.join(" ");
    match (at.is_empty(), units.is_empty()) {
        (true, true) => vec![
            "systemctl daemon-reload".to_owned(),
            "systemctl try-restart tombolo.service".to_owned(),
        ],
        (true, false) => vec![
            format!("systemctl stop {units}"),
            format!("systemctl disable {units}"),
            "systemctl daemon-reload".to_owned(),
        ],
        (false, true) => Vec::new(),
        (false, false) => vec![format!("systemctl{at} disable {units}")],
    }
}

/// How other programs are told of a root directory that is not the usual one.
fn root_flag(root: &Path) -> String {
    match root == Path::new("/") {
        true => String::new(),
        false => format!(" --root {}", root.display()),
    }
}

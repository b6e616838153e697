//! `generate`: writes completions for shells, and man pages.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    Arg, ArgMatches, Command, ValueEnum as _,
    builder::{PossibleValue, PossibleValuesParser},
    value_parser,
};
use clap_complete::Shell;

/// Files to write.
#[derive(Debug)]
pub struct Generate {
    /// Shell whose completions are written. `None` for the man pages.
    shell: Option<Shell>,
    /// Folder for the files.
    folder: PathBuf,
}

/// Returns the subcommand and its arguments.
pub fn command() -> Command {
    let shells = Shell::value_variants().iter().filter_map(Shell::to_possible_value);
    let names = PossibleValuesParser::new(shells.chain([PossibleValue::new("man")]));
    Command::new("generate")
        .about("Write completions for a shell, or man pages")
        .after_help(
            "Example: stream-events generate bash ~/.local/share/bash-completion/completions",
        )
        .arg(
            Arg::new("kind")
                .value_name("KIND")
                .required(true)
                .value_parser(names)
                .help("Shell whose completions to write, or man"),
        )
        .arg(
            Arg::new("folder")
                .value_name("FOLDER")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Folder for the files. It must exist"),
        )
}

impl Generate {
    /// Reads the arguments.
    pub(super) fn read(given: &ArgMatches) -> Self {
        let kind = given.get_one::<String>("kind").map(String::as_str).unwrap_or_default();
        let folder = given.get_one::<PathBuf>("folder").cloned().unwrap_or_default();
        Self { shell: Shell::from_str(kind, false).ok(), folder }
    }
}

/// Writes the files for a command line, and prints the path of each.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of the command")]
pub fn run(generate: &Generate, command: Command) -> ExitCode {
    let folder = &generate.folder;
    let written = match generate.shell {
        Some(shell) => completions(shell, command, folder).map(|path| vec![path]),
        None => man_pages(command, folder),
    };
    match written {
        Ok(paths) => {
            for path in paths {
                println!("{}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("{}: {err}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes the completions. Returns the path.
fn completions(shell: Shell, mut command: Command, folder: &Path) -> io::Result<PathBuf> {
    let name = command.get_name().to_owned();
    clap_complete::generate_to(shell, &mut command, name, folder)
}

/// Writes a man page for the program and one for each subcommand. Returns the paths.
fn man_pages(command: Command, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut paths = Vec::new();
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        paths.push(clap_mangen::Man::new(command.clone()).generate_to(folder)?);
        left.extend(command.get_subcommands().cloned());
    }
    Ok(paths)
}

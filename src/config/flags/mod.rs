//! Table of all flags. The command line, the environment variables, the checks and the table in
//! README.md come from it.

mod backplane;
mod history;
mod limits;
mod listeners;
mod process;
mod publish;
mod push;
mod readers;
mod times;

use crate::config::flag::Flag;

/// Flags by category, in the order of the help.
const CATEGORIES: &[&[Flag]] = &[
    listeners::FLAGS,
    push::FLAGS,
    readers::FLAGS,
    publish::FLAGS,
    history::FLAGS,
    backplane::FLAGS,
    limits::FLAGS,
    times::FLAGS,
    process::FLAGS,
];

/// Returns all flags, in the order of the help.
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    CATEGORIES.iter().copied().flatten()
}

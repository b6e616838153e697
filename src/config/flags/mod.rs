//! Table of all flags. The command line, the environment variables, the checks and the table in
//! docs/configuration.md come from it.

mod backplane;
mod history;
mod limits;
mod listeners;
mod process;
mod publish;
mod pull;
mod push;
mod readers;
mod times;

use crate::config::flag::{Category, Flag};

/// Flags by category, in the order of the help.
const CATEGORIES: &[Category] = &[
    Category { title: "Listeners", flags: listeners::FLAGS },
    Category { title: "Push from Pub/Sub", flags: push::FLAGS },
    Category { title: "Pull from Pub/Sub", flags: pull::FLAGS },
    Category { title: "Readers", flags: readers::FLAGS },
    Category { title: "Publishing by clients", flags: publish::FLAGS },
    Category { title: "History for replay", flags: history::FLAGS },
    Category { title: "Several replicas", flags: backplane::FLAGS },
    Category { title: "Limits", flags: limits::FLAGS },
    Category { title: "Times", flags: times::FLAGS },
    Category { title: "Process and log", flags: process::FLAGS },
];

/// Returns the flags by category, in the order of the help.
pub(crate) fn categories() -> &'static [Category] {
    CATEGORIES
}

/// Returns all flags, in the order of the help.
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    CATEGORIES.iter().flat_map(|category| category.flags)
}

//! Entry of the flag table: what the command line, the environment and the checks know of a flag.

/// Flags of one subject, which the help lists together.
#[derive(Debug)]
pub(crate) struct Category {
    /// Heading in the help.
    pub(crate) title: &'static str,
    /// Flags, in the order of the help.
    pub(crate) flags: &'static [Flag],
}

/// Flag of `dev` and `serve`.
#[derive(Debug)]
pub struct Flag {
    /// Name without the dashes, as in `keep-alive`.
    pub name: &'static str,
    /// Placeholder for the value in the help, as in `TIME`.
    pub value_name: &'static str,
    /// Default value. `None` if `serve` requires the flag.
    pub default: Option<&'static str>,
    /// Default value of `dev`, if it differs.
    pub dev_default: Option<&'static str>,
    /// Smallest and largest allowed value, in the form of the default: a count, a size or a
    /// duration. `None` if every value is allowed.
    pub range: Option<(&'static str, &'static str)>,
    /// True if the flag may be repeated. Its environment variable separates values with commas.
    pub is_repeatable: bool,
    /// True if only the environment can set the value: all users of a machine can see the command
    /// lines of its processes.
    pub is_secret: bool,
    /// True if the short help (`-h`) lists the flag: most users set it.
    pub is_main: bool,
    /// Help text, without the default and without a period at its end.
    pub help: &'static str,
}

/// Makes a flag that has no range, is not repeatable, not secret and not in the short help.
pub(super) const fn flag(
    name: &'static str,
    value_name: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        value_name,
        default,
        dev_default: None,
        range: None,
        is_repeatable: false,
        is_secret: false,
        is_main: false,
        help,
    }
}

impl Flag {
    /// Sets the default of `dev`.
    pub(super) const fn dev(self, default: &'static str) -> Self {
        Self { dev_default: Some(default), ..self }
    }

    /// Sets the smallest and the largest allowed value.
    pub(super) const fn range(self, smallest: &'static str, largest: &'static str) -> Self {
        Self { range: Some((smallest, largest)), ..self }
    }

    /// Allows the flag more than once.
    pub(super) const fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    /// Takes the flag off the command line: only its environment variable sets it.
    pub(super) const fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    /// Lists the flag in the short help.
    pub(super) const fn main(self) -> Self {
        Self { is_main: true, ..self }
    }

    /// Returns the name of the environment variable: `STREAM_EVENTS_KEEP_ALIVE` for `--keep-alive`.
    pub fn env(&self) -> String {
        format!("STREAM_EVENTS_{}", self.name.replace('-', "_").to_uppercase())
    }
}

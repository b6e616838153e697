//! One knob: what the command line, the environment and the checks know of it.

/// One knob.
#[derive(Debug)]
pub struct Flag {
    /// Without the dashes. `STREAM_EVENTS_` and this in capitals is the environment's name.
    pub flag: &'static str,
    /// What its value is called in the help.
    pub value: &'static str,
    /// None when `serve` must be told.
    pub default: Option<&'static str>,
    /// What `dev` has instead.
    pub dev: Option<&'static str>,
    /// The smallest and the largest value: a count, a size or a duration as the default is.
    pub limits: Option<(&'static str, &'static str)>,
    /// Whether it may be given more than once (with commas in the environment).
    pub many: bool,
    /// Whether it is only read from the environment: everyone on a machine sees its command lines.
    pub secret: bool,
    pub help: &'static str,
}

pub(super) const fn flag(
    flag: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Flag {
    Flag { flag, value, default, dev: None, limits: None, many: false, secret: false, help }
}

impl Flag {
    pub(super) const fn dev(self, dev: &'static str) -> Self {
        Self { dev: Some(dev), ..self }
    }

    pub(super) const fn from(self, least: &'static str, most: &'static str) -> Self {
        Self { limits: Some((least, most)), ..self }
    }

    pub(super) const fn many(self) -> Self {
        Self { many: true, ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// Its name in the environment.
    pub fn env(&self) -> String {
        format!("STREAM_EVENTS_{}", self.flag.replace('-', "_").to_uppercase())
    }
}

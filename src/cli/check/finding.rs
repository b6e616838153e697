//! Findings of `check`, and how they are printed.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use crate::cli::tail::escape_controls;

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Name of the check, which stays the same in every version.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// Sentence that says what was seen, and for a problem what was expected.
    pub(super) text: String,
    /// Settings that mend the problem.
    pub(super) settings: &'static [Setting],
}

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The check saw what it expected.
    Good,
    /// A setting has to be changed.
    Problem,
    /// The check could not be made. The text has the reason.
    NotChecked,
}

/// Setting of a program that mends a problem.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Name of the program: a proxy, or the gateway.
    pub(super) program: &'static str,
    /// Setting, with its value.
    pub(super) setting: &'static str,
}

impl Finding {
    pub(super) fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, text: text.into(), settings: &[] }
    }

    pub(super) fn problem(
        check: &'static str,
        text: impl Into<String>,
        settings: &'static [Setting],
    ) -> Self {
        Self { check, verdict: Verdict::Problem, text: text.into(), settings }
    }

    pub(super) fn not_checked(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::NotChecked, text: text.into(), settings: &[] }
    }

    /// Returns the lines for people. Texts of servers may hold control characters, which a terminal
    /// would obey.
    fn lines(&self) -> String {
        // The later lines of a text are indented to stand below its first line.
        let text = escape_controls(&self.text).replace('\n', "\n             ");
        let mut lines = format!("{:<12} {}: {text}", self.verdict.name(), self.check);
        let settings = self.settings.iter();
        lines.extend(settings.map(|of| format!("\n{:13}{}: {}", "", of.program, of.setting)));
        lines
    }

    fn json(&self) -> Value {
        let settings = self.settings.iter();
        let settings: Map<_, _> =
            settings.map(|of| (of.program.to_owned(), of.setting.into())).collect();
        json!({
            "check": self.check,
            "result": self.verdict.name(),
            "text": self.text,
            "settings": settings,
        })
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Problem => "problem",
            Self::NotChecked => "not checked",
        }
    }
}

/// Report of all findings, on standard output.
#[derive(Debug)]
pub(super) struct Report {
    is_json: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// Creates a report. It prints one JSON object at the end, or the lines for people of each
    /// finding at once.
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json, findings: Vec::new() }
    }

    /// Adds a finding.
    pub(super) fn add(&mut self, finding: Finding) {
        if !self.is_json {
            print(&finding.lines());
        }
        self.findings.push(finding);
    }

    /// Prints a note for people on standard error. With JSON, prints nothing.
    pub(super) fn note(&self, text: &str) {
        if !self.is_json {
            writeln!(io::stderr(), "{text}").ok();
        }
    }

    /// Returns true if a finding is a problem.
    fn has_problem(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Problem)
    }

    /// Ends the report. Returns the exit code: 1 if a finding is a problem.
    pub(super) fn finish(self) -> ExitCode {
        let has_problem = self.has_problem();
        if self.is_json {
            let findings: Vec<_> = self.findings.iter().map(Finding::json).collect();
            print(&json!({ "ok": !has_problem, "findings": findings }).to_string());
        }
        if has_problem { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Prints a line. That fails only if the reader of the output has ended, as in `check | head`.
fn print(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::{Finding, Setting};

    #[test]
    fn a_problem_has_its_settings_below_it_and_no_control_characters() {
        let settings = &[Setting { program: "nginx", setting: "gzip off;" }];
        let finding = Finding::problem("compression", "x\x1b[2J\ny", settings);
        let indent = " ".repeat(13);
        assert_eq!(
            finding.lines(),
            format!("problem      compression: x\\u{{1b}}[2J\n{indent}y\n{indent}nginx: gzip off;")
        );
        assert_eq!(finding.json()["settings"]["nginx"], "gzip off;");
    }
}

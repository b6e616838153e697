//! Report of a replica: the streams that it has in a topic, as the other replicas read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::presence::MemberName;

/// Largest number of members of a topic that are listed and announced.
pub const MEMBERS_MAX: usize = 1_000;

/// Streams of one replica in a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Numbers of streams by member, at most [`MEMBERS_MAX`]. 0 is a member whose streams ended a
    /// short time ago.
    pub members: BTreeMap<MemberName, usize>,
    /// Number of streams without a name.
    pub anonymous: usize,
    /// True if the replica has names that are not among the members.
    pub more: bool,
}

/// Answer of the backplane: what it holds of this replica and of all others.
#[derive(Debug, Default)]
pub struct Answer {
    /// Version of this replica's report. `None` if there is no report.
    pub stored: Option<u64>,
    /// Reports of the other replicas.
    pub others: Vec<OtherReport>,
}

/// Report of another replica.
#[derive(Debug)]
pub struct OtherReport {
    /// Name of the replica.
    pub replica: String,
    /// Version of the report: each change has a new one.
    pub version: u64,
    /// The report. `None` if it has not changed since it was last read.
    pub report: Option<Report>,
}

/// JSON form of a report.
#[derive(Serialize, Deserialize)]
struct ReportJson {
    members: BTreeMap<String, usize>,
    #[serde(default)]
    anonymous: usize,
    #[serde(default)]
    more: bool,
}

impl Report {
    /// Encodes the report as JSON.
    pub fn to_json(&self) -> String {
        let members = self.members.iter().map(|(name, streams)| (name.to_string(), *streams));
        let (anonymous, more) = (self.anonymous, self.more);
        // The struct holds only texts and numbers, so encoding cannot fail.
        serde_json::to_string(&ReportJson { members: members.collect(), anonymous, more })
            .unwrap_or_default()
    }

    /// Decodes a report from JSON. A text that is no report counts as a report without streams.
    /// Leaves out names that no replica of this version writes, and names beyond the limit.
    pub fn from_json(text: &str) -> Self {
        let Ok(json) = serde_json::from_str::<ReportJson>(text) else { return Self::default() };
        let valid = json.members.into_iter().filter_map(|(name, streams)| {
            Some((name.parse().ok()?, streams.min(u32::MAX as usize)))
        });
        Self {
            members: valid.take(MEMBERS_MAX).collect(),
            anonymous: json.anonymous.min(u32::MAX as usize),
            more: json.more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_json_and_other_texts_are_no_reports() {
        let name = |text: &str| text.parse::<MemberName>().unwrap();
        let members = [(name("alice"), 2), (name("\"<b>\\"), 1)].into();
        let report = Report { members, anonymous: 3, more: true };
        assert_eq!(Report::from_json(&report.to_json()), report);
        for text in ["", "{}", "[]", r#"{"members":{"a":-1}}"#, r#"{"members":{"a":"b"}}"#] {
            assert_eq!(Report::from_json(text), Report::default(), "{text}");
        }
        let hostile = r#"{"members":{"a\nb":1,"":1," c":1,"none":0,"d":1},"new":[]}"#;
        let read = Report::from_json(hostile);
        assert_eq!(read.members, [(name("none"), 0), (name("d"), 1)].into());
        let many: Vec<_> = (0..2 * MEMBERS_MAX).map(|n| format!("\"{n}\":1")).collect();
        let read = Report::from_json(&format!("{{\"members\":{{{}}}}}", many.join(",")));
        assert_eq!(read.members.len(), MEMBERS_MAX);
    }
}

//! Members of one topic, without a clock and without I/O: who is there, what has changed, and what
//! the other replicas have reported.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    model::presence::{Member, MemberName, Roster},
    presence::report::{Answer, MEMBERS_MAX, Report},
};

/// Number of newest changes that are kept for readers. A reader that is further behind gets the
/// list again.
pub const CHANGES_MAX: usize = 128;

/// Members of one topic.
#[derive(Debug, Default)]
pub struct Room {
    /// All names with a stream, and members whose last stream ended a short time ago.
    subjects: BTreeMap<MemberName, Subject>,
    /// Members without a stream.
    absent: BTreeSet<MemberName>,
    /// Number of members.
    member_count: usize,
    /// Streams of this replica.
    local_streams: usize,
    /// Streams of this replica without a name.
    anonymous: usize,
    /// Last reports of the other replicas.
    others: HashMap<String, Other>,
    /// Newest changes. The last one has the number `changed - 1`.
    changes: VecDeque<Change>,
    /// Number of all changes.
    changed: u64,
    /// True if this replica's own report has changed since its version was set.
    is_modified: bool,
    /// Version of this replica's own report.
    version: u64,
    /// Version that the other replicas can read. `None` if they can read no report.
    stored: Option<u64>,
}

/// Streams of one name, and its state in the topic.
#[derive(Debug, Default)]
struct Subject {
    /// Streams of this replica.
    local_streams: usize,
    /// Streams of the other replicas.
    remote_streams: usize,
    /// True if the newest streams were of this replica. It reports the name until the grace time is
    /// over, so that all readers receive its join and its leave.
    is_local: bool,
    state: MemberState,
}

/// State of a name in the topic.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum MemberState {
    /// The topic had [`MEMBERS_MAX`] members when the name arrived.
    #[default]
    Unlisted,
    /// Member with a stream.
    Member,
    /// Member without a stream since this time. It leaves after the grace time.
    Absent(Instant),
}

/// Report of another replica.
#[derive(Debug)]
struct Other {
    version: u64,
    report: Report,
}

/// Change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Member that was added or removed.
    pub name: MemberName,
    /// True if the member was added.
    pub is_join: bool,
}

impl Room {
    /// Adds a stream of this replica. `None` is a stream without a name.
    pub fn enter(&mut self, name: Option<&MemberName>, now: Instant) {
        self.is_modified = true;
        self.local_streams += 1;
        match name {
            None => self.anonymous += 1,
            Some(name) => {
                let subject = self.subjects.entry(name.clone()).or_default();
                subject.local_streams += 1;
                subject.is_local = true;
                self.settle(name, now);
            }
        }
    }

    /// Removes a stream that [`Self::enter`] added.
    pub fn exit(&mut self, name: Option<&MemberName>, now: Instant) {
        self.is_modified = true;
        self.local_streams = self.local_streams.saturating_sub(1);
        match name {
            None => self.anonymous = self.anonymous.saturating_sub(1),
            Some(name) => {
                if let Some(subject) = self.subjects.get_mut(name) {
                    subject.local_streams = subject.local_streams.saturating_sub(1);
                }
                self.settle(name, now);
            }
        }
    }

    /// Applies the reports of all other replicas. A replica that is not among them has left.
    pub fn apply(&mut self, answer: Answer, now: Instant) {
        self.stored = answer.stored;
        let named: HashSet<_> = answer.others.iter().map(|other| other.replica.clone()).collect();
        let gone = self.others.keys().filter(|replica| !named.contains(*replica));
        for replica in gone.cloned().collect::<Vec<_>>() {
            self.replace(&replica, None, now);
        }
        for other in answer.others {
            if let Some(report) = other.report {
                let other_report = Other { version: other.version, report };
                self.replace(&other.replica, Some(other_report), now);
            }
        }
    }

    /// Replaces the report of another replica.
    fn replace(&mut self, replica: &str, new: Option<Other>, now: Instant) {
        let old = self.others.remove(replica);
        let old = old.map_or_else(BTreeMap::new, |old| old.report.members);
        let mut names: BTreeSet<_> = old.keys().cloned().collect();
        // First the new streams: a member that only has other streams does not become absent.
        for (name, streams) in new.iter().flat_map(|new| &new.report.members) {
            self.subjects.entry(name.clone()).or_default().remote_streams += streams;
            if *streams == 0 && !old.contains_key(name) {
                // The member's streams ended before the report.
                self.list(name);
            }
            names.insert(name.clone());
        }
        for (name, streams) in old {
            if let Some(subject) = self.subjects.get_mut(&name) {
                subject.remote_streams = subject.remote_streams.saturating_sub(streams);
            }
        }
        if let Some(new) = new {
            self.others.insert(replica.to_owned(), new);
        }
        for name in names {
            self.settle(&name, now);
        }
    }

    /// Adapts the state of a name to the number of its streams.
    fn settle(&mut self, name: &MemberName, now: Instant) {
        let Some(subject) = self.subjects.get_mut(name) else { return };
        let is_present = 0 < subject.local_streams + subject.remote_streams;
        if subject.is_local && subject.local_streams == 0 && 0 < subject.remote_streams {
            subject.is_local = false;
            self.is_modified = true;
        }
        match (subject.state, is_present) {
            (MemberState::Unlisted, true) => self.list(name),
            (MemberState::Unlisted, false) => drop(self.subjects.remove(name)),
            (MemberState::Member, false) => {
                subject.state = MemberState::Absent(now);
                self.absent.insert(name.clone());
            }
            (MemberState::Absent(_), true) => {
                subject.state = MemberState::Member;
                self.absent.remove(name);
            }
            (MemberState::Member, true) | (MemberState::Absent(_), false) => {}
        }
    }

    /// Makes a name a member, if it is none and there is room for it.
    fn list(&mut self, name: &MemberName) {
        let Some(subject) = self.subjects.get_mut(name) else { return };
        if subject.state == MemberState::Unlisted && self.member_count < MEMBERS_MAX {
            subject.state = MemberState::Member;
            self.member_count += 1;
            // The report has only members.
            self.is_modified |= 0 < subject.local_streams;
            self.record(name.clone(), true);
        }
    }

    fn record(&mut self, name: MemberName, is_join: bool) {
        if CHANGES_MAX <= self.changes.len() {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { name, is_join });
        self.changed += 1;
    }

    /// Removes the members that have had no stream for `grace`, and lists others in their places.
    pub fn expire(&mut self, grace: Duration, now: Instant) {
        let is_due =
            |name: &&MemberName| match self.subjects.get(*name).map(|subject| subject.state) {
                Some(MemberState::Absent(since)) => grace <= now.saturating_duration_since(since),
                _ => true,
            };
        let due: Vec<_> = self.absent.iter().filter(is_due).cloned().collect();
        for name in due {
            self.absent.remove(&name);
            let subject = self.subjects.remove(&name);
            self.is_modified |= subject.is_some_and(|subject| subject.is_local);
            self.member_count -= 1;
            self.record(name, false);
        }
        if self.member_count < MEMBERS_MAX && self.member_count < self.subjects.len() {
            let unlisted =
                self.subjects.iter().filter(|(_, subject)| subject.state == MemberState::Unlisted);
            let free = MEMBERS_MAX - self.member_count;
            for name in unlisted.map(|(name, _)| name.clone()).take(free).collect::<Vec<_>>() {
                self.settle(&name, now);
            }
        }
    }

    /// Gives all members without a stream the whole grace time again.
    pub fn restart_grace(&mut self, now: Instant) {
        for name in &self.absent {
            if let Some(subject) = self.subjects.get_mut(name) {
                subject.state = MemberState::Absent(now);
            }
        }
    }

    /// Returns true if a member has no stream now.
    pub fn has_absent(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Returns the number of members.
    pub fn member_count(&self) -> usize {
        self.member_count
    }

    /// Returns the number of all changes: the position of a reader that knows all of them.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// Returns the changes after the position `known`. `None` if they are not all kept.
    pub fn changes_after(&self, known: u64) -> Option<impl Iterator<Item = &Change>> {
        let missed = usize::try_from(self.changed.checked_sub(known)?).ok()?;
        Some(self.changes.iter().skip(self.changes.len().checked_sub(missed)?))
    }

    /// Returns the members after `after` in the order of their names.
    pub fn members_after(&self, after: Option<&MemberName>) -> impl Iterator<Item = Member> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let listed = self.subjects.range::<MemberName, _>(range);
        let listed = listed.filter(|(_, subject)| subject.state != MemberState::Unlisted);
        listed.map(|(name, subject)| Member {
            name: name.clone(),
            streams: subject.local_streams + subject.remote_streams,
        })
    }

    /// Returns the number of streams without a name on all replicas.
    pub fn anonymous(&self) -> usize {
        self.others.values().fold(self.anonymous, |sum, other| sum + other.report.anonymous)
    }

    /// Returns true if there are names that are not listed.
    pub fn has_more(&self) -> bool {
        self.member_count < self.subjects.len()
            || self.others.values().any(|other| other.report.more)
    }

    /// Returns the members that have a stream.
    pub fn roster(&self) -> Roster {
        Roster {
            members: self.members_after(None).filter(|member| 0 < member.streams).collect(),
            anonymous: self.anonymous(),
            more: self.has_more(),
        }
    }

    /// Returns the versions of the reports that are known, by replica.
    pub fn known(&self) -> Vec<(String, u64)> {
        self.others.iter().map(|(replica, other)| (replica.clone(), other.version)).collect()
    }

    /// Returns the version of this replica's own report. Assigns it from `next` if the report has
    /// changed since the last version.
    pub fn assign_version(&mut self, next: impl FnOnce() -> u64) -> u64 {
        if std::mem::take(&mut self.is_modified) {
            self.version = next();
        }
        self.version
    }

    /// Returns true if this replica's own report is not the one that the others can read.
    pub fn is_unstored(&self) -> bool {
        let expected = (!self.is_locally_empty()).then_some(self.version);
        self.is_modified || self.stored != expected
    }

    /// Returns true if this replica has nothing to report.
    pub fn is_locally_empty(&self) -> bool {
        let is_local = |name| self.subjects.get(name).is_some_and(|subject| subject.is_local);
        self.local_streams == 0 && !self.absent.iter().any(is_local)
    }

    /// Returns this replica's own report.
    pub fn report(&self) -> Report {
        let local = || self.subjects.iter().filter(|(_, subject)| subject.is_local);
        let listed = local().filter(|(_, subject)| subject.state != MemberState::Unlisted);
        Report {
            members: listed.map(|(name, subject)| (name.clone(), subject.local_streams)).collect(),
            anonymous: self.anonymous,
            more: local().any(|(_, subject)| subject.state == MemberState::Unlisted),
        }
    }
}

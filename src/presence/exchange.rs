//! Exchange of presence with the other replicas: writes the streams of this replica, and reads
//! theirs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, Semaphore},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    backplane::{Backplane, PresenceAnswer, PresenceQuestion, PresenceWrite, UnavailableError},
    model::{presence::Roster, topic::Topic},
    presence::{
        Rooms,
        report::{Answer, OtherReport, Report},
        room::Room,
        shared_room::SharedRoom,
    },
};

/// Interval of the exchange.
const TICK: Duration = Duration::from_secs(1);
/// Shortest time between two passes, when new rooms wait for their first answer.
const PAUSE: Duration = Duration::from_millis(20);
/// Largest number of topics in one pass. With [`TOPICS_MAX`](super::TOPICS_MAX) topics, each is
/// read every fourth time.
const TOPICS_PER_PASS: usize = 250;
/// Number of topics that are asked for at a time.
const TOPICS_PER_CALL: usize = 16;
/// Bytes of reports that are written in one pass. The last call can exceed it.
const PASS_BYTES: usize = 4 * 1024 * 1024;

/// Exchange of one process.
#[derive(Debug)]
pub struct Exchange {
    rooms: Arc<Rooms>,
    backplane: Backplane,
    /// Name of this replica in the reports, which no other process has.
    replica: String,
    state: Mutex<State>,
    /// Permits for questions about topics in which no stream of this process takes part.
    questions: Semaphore,
}

/// Largest number of questions at a time about topics in which no stream of this process takes
/// part. Each answer can have a megabyte.
const QUESTIONS_MAX: usize = 8;

#[derive(Debug, Default)]
struct State {
    /// Number of the last pass.
    pass: u64,
    /// True if the last pass failed.
    has_failed: bool,
    /// True once this replica has left.
    has_left: bool,
}

impl Exchange {
    /// Creates the exchange of `rooms`.
    pub fn new(rooms: Arc<Rooms>, backplane: Backplane) -> Arc<Self> {
        let replica = format!("{:032x}", rand::random::<u128>());
        let questions = Semaphore::new(QUESTIONS_MAX);
        Arc::new(Self { rooms, backplane, replica, state: Mutex::default(), questions })
    }

    /// Returns the rooms in which the streams of this process take part.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Exchanges the members forever.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let is_current = self.pass(false).await;
                    self.rooms.sweep(is_current, Instant::now());
                }
                () = self.rooms.opened.notified() => {
                    // Others may open at the same time.
                    sleep(PAUSE).await;
                    self.pass(true).await;
                }
            }
        }
    }

    /// Removes this replica, so that its members leave after the grace time, unless they are on
    /// another replica by then.
    pub async fn leave(&self) {
        let mut state = self.state.lock().await;
        state.has_left = true;
        if self.backplane.leave_presence(&self.replica).await.is_err() {
            tracing::info!("Redis did not answer: the members of this replica expire");
        }
    }

    /// Asks for the most urgent topics, or only for those that readers wait for. Returns true if
    /// the answers are there, so that members without a stream are known to have none on any
    /// replica.
    async fn pass(&self, only_new: bool) -> bool {
        let mut state = self.state.lock().await;
        if !self.backplane.is_shared() {
            return true;
        }
        if state.has_left {
            return false;
        }
        state.pass += 1;
        let (mut bytes, rooms) = (0, self.rooms.due(only_new, state.pass));
        for some in rooms.chunks(TOPICS_PER_CALL) {
            let questions: Vec<_> = some.iter().map(|room| self.question(room)).collect();
            bytes += questions.iter().map(size).sum::<usize>();
            let Ok(answers) = self.backplane.ask_presence(&self.replica, &questions).await else {
                state.has_failed = true;
                // Readers get what this replica knows.
                self.rooms.all().iter().for_each(|room| room.complete());
                return false;
            };
            let now = Instant::now();
            for (room, answer) in some.iter().zip(answers) {
                room.change(|room| room.apply(decoded(answer), now));
                room.complete();
            }
            if PASS_BYTES < bytes {
                break;
            }
        }
        if std::mem::take(&mut state.has_failed) {
            // The other replicas may not have written their streams again.
            let now = Instant::now();
            self.rooms.all().iter().for_each(|room| room.change(|room| room.restart_grace(now)));
        }
        true
    }

    fn question(&self, room: &SharedRoom) -> PresenceQuestion {
        let (write, known) = room.change(|room| {
            let version = room.assign_version(|| self.rooms.next_version());
            let write = match room.is_unstored() {
                false => PresenceWrite::Keep,
                true if room.is_locally_empty() => PresenceWrite::Remove,
                true => PresenceWrite::Store(version, room.report().to_json()),
            };
            (write, room.known())
        });
        PresenceQuestion { topic: room.topic.clone(), write, known }
    }

    /// Returns the members of a topic that have a stream, over all replicas.
    ///
    /// # Errors
    /// Fails when no stream of this process takes part in the topic, and Redis does not answer.
    pub async fn who(&self, topic: &Topic) -> Result<Roster, UnavailableError> {
        if let Some(roster) = self.rooms.roster(topic) {
            return Ok(roster);
        }
        let question = PresenceQuestion {
            topic: topic.clone(),
            write: PresenceWrite::Keep,
            known: Vec::new(),
        };
        // The semaphore is never closed.
        let _permit = self.questions.acquire().await;
        let answers = self.backplane.ask_presence("", &[question]).await?;
        let mut room = Room::default();
        for answer in answers {
            room.apply(decoded(answer), Instant::now());
        }
        Ok(room.roster())
    }
}

fn size(question: &PresenceQuestion) -> usize {
    match &question.write {
        PresenceWrite::Store(_, report) => report.len(),
        PresenceWrite::Keep | PresenceWrite::Remove => 0,
    }
}

fn decoded(answer: PresenceAnswer) -> Answer {
    let others = answer.others.into_iter().map(|other| OtherReport {
        replica: other.replica,
        version: other.version,
        report: other.report.as_deref().map(Report::from_json),
    });
    Answer { stored: answer.stored, others: others.collect() }
}

impl Rooms {
    /// Returns the most urgent rooms, and records the number of the pass. With `only_new`, returns
    /// only those that readers wait for.
    fn due(&self, only_new: bool, pass: u64) -> Vec<Arc<SharedRoom>> {
        let mut all = self.all();
        if only_new {
            all.retain(|room| !room.urgency().is_complete);
        }
        all.sort_by_cached_key(|room| room.urgency());
        all.truncate(TOPICS_PER_PASS);
        for room in &all {
            room.set_pass(pass);
        }
        all
    }
}

//! Many streams for long, with all that happens to them: stalls, cuts, quiet times and bursts.

mod blocks;
mod check;
mod pushes;
mod random;
mod readers;
mod upsets;
mod watch;

use std::time::{Duration, Instant};

use serde_json::json;

use self::{
    check::Check,
    pushes::{PUBLISHER, Pushes},
    random::Random,
    readers::Readers,
    watch::Watch,
};
use crate::{
    Result,
    arguments::{Common, Soak},
    clock::now_ns,
    modes::Outcome,
    report::object,
    socket::{Poll, Ready, raise_file_limit},
    tally::Shape,
};

const BUFFER_BYTES: usize = 256 * 1024;
/// The longest wait between two looks at the plan.
const TURN: Duration = Duration::from_millis(20);
const MINUTE: Duration = Duration::from_secs(60);
/// Streams have to open within this, and what is left has to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// After publishing: when nothing came for so long, nothing will.
const QUIET: Duration = Duration::from_secs(20);
/// After which a server has noticed that its readers are gone.
const NOTICE: Duration = Duration::from_secs(5);

struct Run {
    shape: Shape,
    poll: Poll,
    ready: Ready,
    buffer: Vec<u8>,
    random: Random,
    check: Check,
    pushes: Pushes,
    readers: Readers,
}

pub fn run(common: &Common, soak: &Soak) -> Result<Outcome> {
    let process = common.process().ok_or("soak: --pid is wanted")?;
    let allowed = raise_file_limit();
    if allowed < (soak.streams + soak.topics) as u64 + 50 {
        return Err(format!("{allowed} files may be open: too few (ulimit -Hn)").into());
    }
    let seed = soak.seed.unwrap_or_else(now_ns);
    eprintln!("load: soak: --seed {seed}");
    let (before, sockets_before) = (process.memory().private, process.sockets());
    let mut run = Run::new(common, soak, seed)?;
    let time = Duration::from_secs_f64(soak.minutes * 60.0);
    run.until(PATIENCE, "streams open", |run| run.readers.are_open())?;
    let mut watch = Watch::begin(process, time);
    run.live(soak, time, &mut watch)?;
    run.finish(&mut watch)?;
    run.readers.close();
    run.pushes.close();
    std::thread::sleep(NOTICE);
    let Run { check, pushes, readers, .. } = run;
    let mut report = object(json!({
        "streams": soak.streams, "minutes": soak.minutes, "seed": seed,
        "topics": soak.topics, "topics_per_stream": soak.topics_per_stream,
        "published": check.messages(), "pushes_repeated": pushes.repeated,
        "bursts": pushes.bursts, "deliveries": check.deliveries,
        "reconnects": readers.reconnects, "stalls": readers.stalls,
        "gaps": check.gaps, "missed_told": check.missed, "missed_by_all": check.missed_by_all,
        "violations": check.violations, "named": check.named,
        "private_before": before, "private_after": process.memory().private,
        "sockets_left": process.sockets().saturating_sub(sockets_before),
    }));
    report.extend(watch.report());
    Ok(Outcome { report, failed: 0 < check.violations })
}

impl Run {
    fn new(common: &Common, soak: &Soak, seed: u64) -> Result<Self> {
        let per_stream = soak.topics_per_stream.min(soak.topics);
        let shape = Shape { streams: soak.streams, topics: soak.topics, per_stream };
        let target = common.target()?;
        Ok(Self {
            shape,
            poll: Poll::new()?,
            ready: Ready::default(),
            buffer: vec![0; BUFFER_BYTES],
            random: Random(seed),
            check: Check::new(shape),
            pushes: Pushes::new(target.clone(), soak.topics, soak.minutes * 60.0),
            readers: Readers::new(target, shape),
        })
    }

    /// Handles what is due and what is ready, once.
    fn turn(&mut self) -> Result<()> {
        self.readers.act(&mut self.check, &self.poll)?;
        self.pushes.send(&mut self.check, &mut self.random, &self.poll)?;
        let mut ready = std::mem::take(&mut self.ready);
        self.poll.wait(&mut ready, Some(TURN))?;
        for (token, _) in ready.iter() {
            let number = (token & (PUBLISHER - 1)) as usize;
            if token & PUBLISHER == 0 {
                self.readers.read(number, &mut self.check, &mut self.buffer);
            } else {
                self.pushes.read(number, &mut self.buffer);
            }
        }
        self.ready = ready;
        Ok(())
    }

    /// Messages, stalls and cuts.
    fn live(&mut self, soak: &Soak, time: Duration, watch: &mut Watch) -> Result<()> {
        let began = Instant::now();
        let (mut at, mut told) = (began, began);
        let (mut cuts, mut stalls) = (0.0, 0.0);
        while began.elapsed() < time {
            let passed = at.elapsed().as_secs_f64();
            at = Instant::now();
            cuts += soak.streams as f64 * passed / soak.cut_every;
            stalls += soak.streams as f64 * passed / soak.stall_every;
            while 1.0 <= cuts {
                cuts -= 1.0;
                self.readers.cut(&mut self.random)?;
            }
            while 1.0 <= stalls {
                stalls -= 1.0;
                self.readers.write_timeout(&mut self.random, soak.stall_s, &self.poll)?;
            }
            self.pushes.plan(&mut self.random, now_ns());
            self.turn()?;
            watch.look(false);
            if MINUTE <= told.elapsed() {
                told = Instant::now();
                self.tell(began, watch);
            }
        }
        Ok(())
    }

    fn tell(&self, began: Instant, watch: &Watch) {
        let (private, sockets, busy) = watch.last();
        eprintln!(
            "load: soak: {:.0} min, {} published, {} deliveries, {} reconnects, {} stalls, \
             {} gaps, {} violations; the server: {:.1} MB, {sockets} sockets, {busy:.2} cores",
            began.elapsed().as_secs_f64() / 60.0,
            self.check.messages(),
            self.check.deliveries,
            self.readers.reconnects.values().sum::<u64>(),
            self.readers.stalls,
            self.check.gaps,
            self.check.violations,
            private as f64 / 1e6,
        );
    }

    /// Nothing more is published, and everyone reads what there is.
    fn finish(&mut self, watch: &mut Watch) -> Result<()> {
        self.pushes.stop();
        self.until(PATIENCE, "pushes", |run| run.pushes.is_settled())?;
        watch.look(true);
        self.readers.recover(&self.poll)?;
        self.until(PATIENCE, "streams open again", |run| run.readers.are_open())?;
        let (began, mut moved) = (Instant::now(), Instant::now());
        let mut deliveries = self.check.deliveries;
        while moved.elapsed() < QUIET && began.elapsed() < PATIENCE {
            if (0..self.shape.streams).all(|stream| self.check.is_complete(stream)) {
                break;
            }
            self.turn()?;
            if deliveries != self.check.deliveries {
                (deliveries, moved) = (self.check.deliveries, Instant::now());
            }
        }
        self.check.finish();
        Ok(())
    }

    /// Turns until it is so.
    fn until(&mut self, time: Duration, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + time;
        while !is_so(self) {
            if end < Instant::now() {
                return Err(format!("soak: {what}: not within {time:?}").into());
            }
            self.turn()?;
        }
        Ok(())
    }
}

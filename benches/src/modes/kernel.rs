//! What the kernel holds for the server's ends of connections, as `ss` tells it.

use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Of the sockets of some peers, by port.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// The most that one held, in bytes.
    pub bytes_max: HashMap<u16, u64>,
    /// When it was first not established any more.
    pub cut_after: HashMap<u16, Duration>,
}

/// Looks once in a while, on a thread of its own.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Rarely, as a look takes some milliseconds of the client's core.
const EVERY: Duration = Duration::from_secs(1);

impl Watch {
    pub fn start(server_port: u16, peers: Vec<u16>) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (into, stopped, began) = (Arc::clone(&seen), Arc::clone(&stop), Instant::now());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let text = look(server_port);
                let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                note(&text, &peers, began.elapsed(), &mut seen);
                drop(seen);
                std::thread::park_timeout(EVERY);
            }
        });
        Self { seen, stop, thread }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        let _ = self.thread.join();
        Arc::try_unwrap(self.seen).map_or_else(
            |seen| seen.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            |seen| seen.into_inner().unwrap_or_else(PoisonError::into_inner),
        )
    }
}

fn look(port: u16) -> String {
    let output = Command::new("ss").args(["-tmnH", &format!("sport = :{port}")]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Two lines for each socket: state, queues and addresses, then its memory, as in
/// `skmem:(r0,rb131072,t0,tb4194304,f2048,w1050624,o0,bl0,d0)`.
fn note(text: &str, peers: &[u16], at: Duration, seen: &mut Seen) {
    let mut established = HashMap::new();
    let mut port = None;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [state, _, _, _, peer, ..] = words.as_slice() {
            port = peer.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
            if *state == "ESTAB" {
                established.extend(port.map(|port| (port, 0)));
            }
        }
        if let (Some(port), Some(at)) = (port, line.find("skmem:(")) {
            let fields = line[at + 7..].split([',', ')']);
            let bytes = |prefix: char| {
                let digits =
                    fields.clone().find_map(|field| field.strip_prefix(prefix)?.parse().ok());
                digits.unwrap_or(0u64)
            };
            established.entry(port).and_modify(|held| *held = bytes('r') + bytes('w') + bytes('f'));
        }
    }
    for peer in peers {
        if let Some(bytes) = established.get(peer) {
            let most = seen.bytes_max.entry(*peer).or_default();
            *most = (*most).max(*bytes);
        } else if !text.is_empty() {
            seen.cut_after.entry(*peer).or_insert(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed_and_cuts_are_seen() {
        let text = "ESTAB     0 2559 127.0.0.1:80 127.0.0.2:4000\n\t \
                    skmem:(r1,rb131072,t0,tb2626560,f20,w300,o0,bl0,d0)\n\
                    FIN-WAIT-1 0 9 127.0.0.1:80 127.0.0.3:4001 \
                    skmem:(r0,rb131072,t0,tb2626560,f4,w5,o0,bl0,d0)\n";
        let mut seen = Seen::default();
        note(text, &[4000, 4001], Duration::from_secs(7), &mut seen);
        assert_eq!(seen.bytes_max.get(&4000), Some(&321));
        assert_eq!(seen.cut_after.get(&4001), Some(&Duration::from_secs(7)));
        assert_eq!(seen.cut_after.len(), 1);
    }
}

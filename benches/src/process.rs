//! What the kernel says of a process and its descendants.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{Result, client::Client};

/// A server's processes.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

/// Time on a core.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// To the nanosecond.
    pub run_ns: u64,
    /// In ticks, with the split.
    pub user_ticks: u64,
    pub system_ticks: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    /// Shared pages count by their share.
    pub pss: u64,
    pub private: u64,
}

impl Process {
    /// Itself and its descendants.
    fn all(self) -> Vec<u32> {
        let mut found = vec![self.0];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            let tasks = names(&format!("/proc/{pid}/task"));
            for task in tasks {
                let children = read(&format!("/proc/{pid}/task/{task}/children"));
                found.extend(
                    children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()),
                );
                if found.len() > 1_000 {
                    break;
                }
            }
            next += 1;
        }
        found
    }

    /// Of all threads that there are. (Those that have ended are gone, but no server here ends one
    /// under load.)
    pub fn cpu(self) -> Cpu {
        let mut cpu = Cpu::default();
        for pid in self.all() {
            for task in names(&format!("/proc/{pid}/task")) {
                let schedstat = read(&format!("/proc/{pid}/task/{task}/schedstat"));
                cpu.run_ns += number(schedstat.split_whitespace().next());
                let stat = read(&format!("/proc/{pid}/task/{task}/stat"));
                // The command's name, in brackets, may have blanks in it.
                let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace().skip(11);
                cpu.user_ticks += number(fields.next());
                cpu.system_ticks += number(fields.next());
            }
        }
        cpu
    }

    pub fn memory(self) -> Memory {
        let mut memory = Memory::default();
        for pid in self.all() {
            for line in read(&format!("/proc/{pid}/smaps_rollup")).lines() {
                let mut words = line.split_whitespace();
                let name = words.next();
                let bytes = number(words.next()) * 1024;
                match name {
                    Some("Pss:") => memory.pss += bytes,
                    Some("Private_Clean:" | "Private_Dirty:") => memory.private += bytes,
                    _ => {}
                }
            }
        }
        memory
    }

    /// How many sockets it holds.
    pub fn sockets(self) -> usize {
        let of = |pid: &u32| {
            let folder = format!("/proc/{pid}/fd");
            let is_socket = |name: &String| {
                fs::read_link(format!("{folder}/{name}"))
                    .is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
            };
            names(&folder).filter(is_socket).count()
        };
        self.all().iter().map(of).sum()
    }

    /// Waits until it does next to nothing for a while, at most so long. The client reads on.
    pub fn settle(self, client: &mut Client) -> Result<()> {
        const QUIET: Duration = Duration::from_millis(300);
        const QUIET_NS: u64 = 1_000_000;
        let end = Instant::now() + Duration::from_secs(15);
        let mut before = self.cpu();
        while Instant::now() < end {
            rest(client, QUIET)?;
            let now = self.cpu();
            if now.run_ns.saturating_sub(before.run_ns) < QUIET_NS {
                break;
            }
            before = now;
        }
        Ok(())
    }
}

/// Lets the client read for a time.
pub fn rest(client: &mut Client, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        client.turn(Some(left))?;
    }
    Ok(())
}

fn names(folder: &str) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Empty for a thread that has just ended.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

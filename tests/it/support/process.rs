//! The real binary, as a process.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually};

/// A command with an environment of its own.
pub fn stream_events(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-events"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STREAM_EVENTS_")) {
        command.env_remove(name);
    }
    command
}

/// A process that is killed when the test ends, however it ends.
pub struct Process {
    child: Child,
    /// What it wrote to its standard error, line by line.
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The address that a gateway with JSON logs listens on: a field of its first line.
    pub fn listen(&self) -> SocketAddr {
        self.address("listen")
    }

    /// That of its metrics.
    pub fn ops_listen(&self) -> SocketAddr {
        self.address("ops_listen")
    }

    fn address(&self, field: &str) -> SocketAddr {
        eventually("the gateway listens", || {
            let log = self.log();
            let mut lines = log.iter().filter_map(|line| serde_json::from_str(line).ok());
            lines.find_map(|line: serde_json::Value| line.get(field)?.as_str()?.parse().ok())
        })
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its exit, and how long that took from now.
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = eventually("the process ends", || self.child.try_wait().unwrap());
        (status, start.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("its log:\n{}", self.log().join("\n"));
        }
    }
}

/// `serve` on a port of its own, open to all.
pub const OPEN: [&str; 9] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--ops-listen",
    "off",
    "--push-auth",
    "none",
    "--read-auth",
    "anonymous",
];

/// `serve` on a port of its own, open to all, with these flags, and where it listens.
pub fn serve(flags: &[&str]) -> (Process, SocketAddr) {
    let process = Process::start(&mut stream_events(&[&OPEN[..], flags].concat()));
    let address = process.listen();
    (process, address)
}

/// Runs a command to its end within the limit, and returns whether it succeeded and what it printed.
pub fn output(command: &mut Command) -> (bool, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|err| panic!("{command:?}: {err}"));
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).ok();
        text
    });
    let text = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).ok();
        text
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if PATIENCE < start.elapsed() {
            child.kill().ok();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status.success(), text.join().unwrap() + &errors.join().unwrap())
}

/// Whether a program is installed. Tests that need one that is not say so and end.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

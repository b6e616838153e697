//! A real Redis server on a port of its own, and a proxy that spoils the way to it.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Connection, FromRedisValue, cmd};
use tempfile::TempDir;

use super::eventually;

pub struct RedisServer {
    process: Option<Child>,
    pub port: u16,
    pub folder: TempDir,
    arguments: Vec<String>,
}

/// A port to listen on, also again after a restart: below those that the kernel gives to outgoing
/// connections (`ip_local_port_range`, from 32,768), which could take it in between.
pub fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| rand::random_range(10_000..32_000));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl RedisServer {
    /// One that keeps everything in memory.
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        let mut server = Self::stopped();
        server.arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        server.restart();
        server
    }

    /// One that is not there yet.
    pub fn stopped() -> Self {
        let (port, folder) = (free_port(), TempDir::new().unwrap());
        Self { process: None, port, folder, arguments: Vec::new() }
    }

    /// Starts it again on the same port, with what is on its disk.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(self.folder.path()).args(&self.arguments);
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        self.process = Some(command.stdout(log).stdin(Stdio::null()).spawn().unwrap());
        eventually("Redis answers", || {
            let mut socket = TcpStream::connect(self.address()).ok()?;
            socket.write_all(b"PING\r\n").ok()?;
            let mut answer = [0; 64];
            let read = socket.read(&mut answer).ok()?;
            // Whoever wants a password first answers too.
            (!answer[..read].starts_with(b"-LOADING")).then_some(())
        });
    }

    /// As the kernel does it when memory is short.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn connect(&self) -> redis::RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    /// What it says to a command.
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.connect().unwrap();
        cmd(command[0]).arg(&command[1..]).query(&mut connection).unwrap()
    }

    pub fn tell(&self, command: &[&str]) {
        self.ask::<redis::Value>(command);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Passes bytes on, or not.
pub struct Proxy {
    pub address: SocketAddr,
    way: Arc<Mutex<Way>>,
}

struct Way {
    target: SocketAddr,
    /// How long each part of an answer is held back.
    delay: Duration,
    /// Answers go nowhere.
    swallows: bool,
    /// Those of connections that read the log.
    swallows_tails: bool,
    refuses: bool,
    open: Vec<Passing>,
}

/// A connection through the proxy.
struct Passing {
    client: TcpStream,
    server: TcpStream,
    /// Whether it reads the log.
    reads: Arc<AtomicBool>,
}

impl Passing {
    fn end(&self) {
        self.client.shutdown(Shutdown::Both).ok();
        self.server.shutdown(Shutdown::Both).ok();
    }
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(Mutex::new(Way {
            target,
            delay: Duration::ZERO,
            swallows: false,
            swallows_tails: false,
            refuses: false,
            open: Vec::new(),
        }));
        let shared = Arc::clone(&way);
        // It ends with the tests' process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut way = shared.lock().unwrap();
                if way.refuses {
                    continue;
                }
                let Ok(server) = TcpStream::connect(way.target) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (back_from, back_to) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                let reads = Arc::new(AtomicBool::new(false));
                way.open.push(Passing { client, server, reads: Arc::clone(&reads) });
                let (saw_read, way) = (Arc::clone(&reads), Arc::clone(&shared));
                std::thread::spawn(move || {
                    copy(from, to, |part| {
                        let is_read = part.windows(5).any(|name| name == b"XREAD");
                        saw_read.fetch_or(is_read, Ordering::SeqCst);
                        false
                    });
                });
                std::thread::spawn(move || {
                    copy(back_from, back_to, |_| spoil(&way, reads.load(Ordering::SeqCst)));
                });
            }
        });
        Self { address, way }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Where the next connections go.
    pub fn point_to(&self, target: SocketAddr) {
        self.way.lock().unwrap().target = target;
    }

    pub fn delay(&self, delay: Duration) {
        self.way.lock().unwrap().delay = delay;
    }

    /// From now on no answer comes back, and no connection ends either.
    pub fn swallow(&self, swallows: bool) {
        self.way.lock().unwrap().swallows = swallows;
    }

    /// As [`Proxy::swallow`], for the connections that read the log alone.
    pub fn swallow_tails(&self, swallows: bool) {
        self.way.lock().unwrap().swallows_tails = swallows;
    }

    pub fn refuse(&self, refuses: bool) {
        self.way.lock().unwrap().refuses = refuses;
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for passing in self.way.lock().unwrap().open.drain(..) {
            passing.end();
        }
    }

    /// Ends those that read the log.
    pub fn cut_tails(&self) {
        self.way.lock().unwrap().open.retain(|passing| {
            let reads = passing.reads.load(Ordering::SeqCst);
            if reads {
                passing.end();
            }
            !reads
        });
    }

    /// Says to all clients that nothing more comes, and still takes what they send.
    pub fn half_close(&self) {
        for passing in &self.way.lock().unwrap().open {
            passing.client.shutdown(Shutdown::Write).ok();
        }
    }
}

/// Holds an answer back. Returns whether it goes nowhere at all.
fn spoil(way: &Mutex<Way>, is_tail: bool) -> bool {
    let (delay, swallows) = {
        let way = way.lock().unwrap();
        (way.delay, way.swallows || way.swallows_tails && is_tail)
    };
    std::thread::sleep(delay);
    swallows
}

fn copy(mut from: TcpStream, mut to: TcpStream, swallows: impl Fn(&[u8]) -> bool) {
    let mut part = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut part) {
        if !swallows(&part[..read]) && to.write_all(&part[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

//! Debian's `HAProxy` in front of a gateway.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{eventually, redis::free_port};

pub struct Haproxy {
    process: Child,
    folder: TempDir,
    pub address: SocketAddr,
}

impl Haproxy {
    /// Starts `HAProxy` in front of the gateway at `to`, with these lines in its `defaults`.
    pub fn start(to: SocketAddr, defaults: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let text = format!(
            "defaults\n mode http\n timeout connect 5s\n{defaults}\n\
             listen gateway\n bind {address}\n server one {to}\n"
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("haproxy");
        // In the foreground, in one process.
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.stderr(log).spawn().unwrap();
        let mut haproxy = Self { process, folder, address };
        eventually("HAProxy listens", || {
            let ended = haproxy.process.try_wait().unwrap();
            assert!(ended.is_none(), "HAProxy: {ended:?}\n{}", haproxy.log());
            TcpStream::connect(haproxy.address).ok()
        });
        haproxy
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            eprintln!("HAProxy:\n{}", self.log());
        }
    }
}

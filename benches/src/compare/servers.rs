//! The servers' processes.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    Result,
    compare::issuer::{ACCOUNT, AUDIENCE, Issuer},
};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// With one worker, as the others.
    Gateway,
    /// With two.
    Gateway2,
    /// With a verified token on each push.
    GatewayToken,
    Floor,
    Naive,
    NaiveLab,
    Nchan,
    /// With its log in a Redis server of its own, on the client's core.
    GatewayRedis,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Gateway2 => "gateway-2",
            Self::GatewayToken => "gateway-token",
            Self::Floor => "floor",
            Self::Naive => "naive",
            Self::NaiveLab => "naive-lab",
            Self::Nchan => "nchan",
            Self::GatewayRedis => "gateway-redis",
        }
    }

    /// As `load` calls it.
    pub fn dialect(self) -> &'static str {
        match self {
            Self::Gateway | Self::Gateway2 | Self::GatewayToken | Self::GatewayRedis => "gateway",
            Self::Naive | Self::NaiveLab => "naive",
            Self::Floor => "floor",
            Self::Nchan => "nchan",
        }
    }

    pub fn wants_token(self) -> bool {
        self == Self::GatewayToken
    }
}

/// Where the binaries are, and on which cores they run.
#[derive(Debug)]
pub struct Binaries {
    folder: PathBuf,
    /// Servers on the first, the client on the second; not where there is only one.
    pinned: bool,
}

impl Binaries {
    pub fn new(folder: &Path) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        Ok(Self { folder: fs::canonicalize(folder)?, pinned: 1 < cores })
    }

    fn command(&self, core: &str, program: &Path) -> Command {
        if !self.pinned {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program);
        command
    }

    fn server(&self, name: &str) -> Command {
        self.command("0", &self.folder.join(name))
    }

    pub fn load(&self) -> Command {
        self.command("1", &self.folder.join("load"))
    }
}

/// A server that listens. It ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    redis: Option<Child>,
    pub address: SocketAddr,
    /// With its log and what else it writes.
    _folder: TempDir,
}

const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

impl Running {
    pub fn start(server: Server, binaries: &Binaries, issuer: &Issuer) -> Result<Self> {
        let folder = TempDir::new()?;
        let (address, ops) = (free_address()?, free_address()?);
        let mut redis = None;
        let mut command = match server {
            Server::GatewayRedis => {
                let (child, url) = start_redis(binaries, folder.path())?;
                redis = Some(child);
                let mut command = gateway(binaries, ops, "1");
                command.args(["--backplane", &url]);
                command
            }
            Server::Gateway => gateway(binaries, ops, "1"),
            Server::Gateway2 => gateway(binaries, ops, "2"),
            Server::GatewayToken => {
                let mut command = gateway(binaries, ops, "1");
                command.args(["--push-auth", "oidc", "--push-jwks-url", &issuer.url()]);
                command.args(["--push-audience", AUDIENCE, "--push-service-account", ACCOUNT]);
                command
            }
            Server::Floor => binaries.server("floor"),
            Server::Naive => binaries.server("naive"),
            Server::NaiveLab => {
                let mut command = binaries.server("naive");
                command.arg("--lab");
                command
            }
            Server::Nchan => nchan(binaries, address, folder.path())?,
        };
        if server != Server::Nchan {
            command.args(["--listen", &address.to_string()]);
        }
        if matches!(server, Server::Gateway | Server::Gateway2 | Server::GatewayRedis) {
            command.args(["--push-auth", "none"]);
        }
        let log = folder.path().join("log");
        command
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let child = command.spawn()?;
        // A gateway that verifies tokens is ready when it has the keys; that is asked elsewhere.
        let is_gateway = server.dialect() == "gateway";
        let mut running = Self { child, redis, address, _folder: folder };
        let end = Instant::now() + START;
        while !is_ready(if is_gateway { ops } else { address }, is_gateway) {
            if end < Instant::now() || running.child.try_wait()?.is_some() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("{} did not start: {log}", server.name()).into());
            }
            sleep(LOOK);
        }
        Ok(running)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx' workers outlive a master that is killed, so it is asked first. The gateway would
        // drain for seconds, and has nobody left.
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let end = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            sleep(LOOK);
        }
        for child in [&mut self.child].into_iter().chain(&mut self.redis) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One that keeps everything in memory, and answers.
fn start_redis(binaries: &Binaries, folder: &Path) -> Result<(Child, String)> {
    let address = free_address()?;
    let mut command = binaries.command("1", Path::new("redis-server"));
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.arg("--dir").arg(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().map_err(|err| format!("redis-server: {err}; scripts/bench"))?;
    let end = Instant::now() + START;
    while TcpStream::connect(address).is_err() {
        if end < Instant::now() {
            return Err("redis-server did not start".into());
        }
        sleep(LOOK);
    }
    Ok((child, format!("redis://{address}")))
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn is_ready(address: SocketAddr, is_gateway: bool) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut socket) = TcpStream::connect(address) else { return false };
    if !is_gateway {
        return true;
    }
    let mut answer = [0; 12];
    let asked = socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    asked.and_then(|()| socket.read_exact(&mut answer)).is_ok() && answer.ends_with(b"200")
}

fn gateway(binaries: &Binaries, ops: SocketAddr, workers: &str) -> Command {
    let mut command = binaries.server("stream-events");
    command.args(["serve", "--read-auth", "anonymous", "--workers", workers]);
    command.args(["--ops-listen", &ops.to_string(), "--subscribers-max", "50000"]);
    command.args(["--drain-timeout", "0s"]);
    command
}

/// nginx with nchan as Debian packages it, one worker and the memory store.
fn nchan(binaries: &Binaries, address: SocketAddr, folder: &Path) -> Result<Command> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
    let here = folder.display();
    // Without this nginx gives its worker to another user, who may not write here.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let text = format!(
        "load_module {MODULE};
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {here}/pid;
error_log {here}/log;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    nchan_shared_memory_size 512M;
    server {{
        listen {address} backlog=4096;
        location ~ ^/pub/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 2000;
            nchan_message_timeout 15m;
        }}
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, text)?;
    let program =
        ["/usr/sbin/nginx", "/usr/bin/nginx"].iter().find(|path| Path::new(path).exists());
    let program = program.ok_or("nginx is not installed: scripts/bench does that")?;
    let mut command = binaries.command("0", Path::new(program));
    command.arg("-p").arg(folder).arg("-c").arg(path);
    Ok(command)
}

//! Debian's nginx with the configurations of `deploy/nginx`, on ports of its own.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{eventually, redis::free_port, tls::Certificate};

pub struct Nginx {
    master: Child,
    folder: TempDir,
    file: &'static str,
    pub address: SocketAddr,
}

impl Nginx {
    /// `l7.conf` in front of these, which are gateways or layer 4, with further edits.
    pub fn l7(to: [SocketAddr; 2], certificate: &Certificate, more: &[(&str, &str)]) -> Self {
        let listen = format!("listen 127.0.0.1:{} ssl", free_port());
        let cert = format!("ssl_certificate {};", certificate.cert.display());
        let key = format!("ssl_certificate_key {};", certificate.key.display());
        let edits = [
            ("listen 443 ssl", &*listen),
            ("server_name events.example.com;", "server_name localhost;"),
            ("ssl_certificate /etc/nginx/tls/cert.pem;", &cert),
            ("ssl_certificate_key /etc/nginx/tls/key.pem;", &key),
            ("access_log /var/log/nginx/access.log", "access_log access.log"),
            // Those of the package are root's.
            (
                "http {",
                "http { client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; \
                 uwsgi_temp_path t4; scgi_temp_path t5;",
            ),
        ];
        Self::start("l7.conf", to, &[&edits, more].concat())
    }

    /// `l4.conf` in front of these gateways, with further edits.
    pub fn l4(to: [SocketAddr; 2], more: &[(&str, &str)]) -> Self {
        let listen = format!("listen 127.0.0.1:{}", free_port());
        Self::start("l4.conf", to, &[&[("listen 8080", &*listen)], more].concat())
    }

    /// `deploy/local/nginx.conf` in front of these gateways, with the pages of `examples/chat`.
    pub fn local(to: &[SocketAddr]) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(project.join("deploy/local/nginx.conf")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let servers: Vec<_> = to.iter().map(|address| format!("server {address};")).collect();
        let pages = format!("alias {}/;", project.join("examples/chat").display());
        let mut temporary = 0;
        let edited = text.lines().map(|line| match line.split_once("; # run: ") {
            Some((_, "LISTEN")) => format!("listen {address};"),
            Some((_, "A")) => servers.join("\n"),
            Some((_, "B")) => String::new(),
            Some((_, "CHAT")) => pages.clone(),
            Some((_, "PID")) => "pid pid;".to_owned(),
            Some((setting, "TEMP")) => {
                temporary += 1;
                format!("{} t{temporary};", setting.split_whitespace().next().unwrap())
            }
            _ => line.to_owned(),
        });
        let text = edited.collect::<Vec<_>>().join("\n");
        Self::run("local.conf", &text, address)
    }

    /// Starts an nginx with its defaults and these directives in front of these gateways. With a
    /// certificate, `listen` has `ssl` and these words. By default nginx speaks HTTP/1.0 to a
    /// gateway. With `proxy_http_version 1.1` even a buffering nginx would pass each chunk on.
    pub fn plain(to: &[SocketAddr], directives: &str, tls: Option<(&Certificate, &str)>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let servers: Vec<_> = to.iter().map(|address| format!("server {address};")).collect();
        let servers = servers.join(" ");
        let (words, files) = tls.map_or_else(Default::default, |(certificate, words)| {
            let (cert, key) = (certificate.cert.display(), certificate.key.display());
            (format!("ssl {words}"), format!("ssl_certificate {cert}; ssl_certificate_key {key};"))
        });
        let text = format!(
            "pid pid; error_log error.log info; events {{ worker_connections 256; }}
             http {{
                 access_log access.log; client_body_temp_path t1; proxy_temp_path t2;
                 fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
                 upstream gateways {{ {servers} }}
                 server {{
                     listen {address} {words}; {files}
                     location / {{
                         proxy_pass http://gateways; {directives}
                     }}
                 }}
             }}"
        );
        Self::run("plain.conf", &text, address)
    }

    fn start(file: &'static str, to: [SocketAddr; 2], edits: &[(&str, &str)]) -> Self {
        let servers = to.map(|address| format!("server {address} "));
        let edits = [
            ("pid /run/nginx.pid;", "pid pid;"),
            ("error_log /var/log/nginx/error.log error;", "error_log error.log info;"),
            ("server 10.0.0.11:8080 ", &servers[0]),
            ("server 10.0.0.12:8080 ", &servers[1]),
        ]
        .into_iter()
        .chain(edits.iter().copied());
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx");
        let mut text = fs::read_to_string(deploy.join(file)).unwrap();
        for (from, to) in edits {
            // A gateway is in two lists: of connections in HTTP/1.1, and of those in HTTP/2.
            let is_once = from.starts_with("server 10.") || text.matches(from).count() == 1;
            assert!(is_once && text.contains(from), "{file}: {from}");
            text = text.replace(from, to);
        }
        let listen = text.lines().find_map(|line| line.trim().strip_prefix("listen ")).unwrap();
        let address = listen.split([' ', ';']).next().unwrap().parse().unwrap();
        Self::run(file, &text, address)
    }

    fn run(file: &'static str, text: &str, address: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        // Its workers are another user when root starts it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join(file), text).unwrap();
        let mut command = Self::command(&folder, file);
        let log = fs::File::create(folder.path().join("stderr")).unwrap();
        let master = command.args(["-g", "daemon off;"]).stderr(log).spawn().unwrap();
        let mut nginx = Self { master, folder, file, address };
        eventually("nginx listens", || {
            let ended = nginx.master.try_wait().unwrap();
            assert!(ended.is_none(), "nginx: {ended:?}\n{}", nginx.log());
            TcpStream::connect(nginx.address).ok()
        });
        nginx
    }

    fn command(folder: &TempDir, file: &str) -> Command {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join(file));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// New workers take over; the old ones keep what they have for `worker_shutdown_timeout`.
    pub fn reload(&self) {
        let mut command = Self::command(&self.folder, self.file);
        let status = command.args(["-s", "reload"]).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{}", self.log());
    }

    /// What it wrote of errors.
    pub fn log(&self) -> String {
        let read = |file| fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
        read("stderr") + &read("error.log")
    }

    /// What it wrote of requests.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, the master would leave its workers behind.
        let pid = Pid::from_raw(self.master.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).ok();
        self.master.wait().ok();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.file, self.log());
        }
    }
}

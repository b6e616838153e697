//! Google's Pub/Sub emulator, which is part of the gcloud CLI.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{eventually, http1, process::Process, redis::free_port};

/// Folder of the jar in the gcloud CLI.
const JAR: &str = "platform/pubsub-emulator/lib";

/// Returns the emulator's jar, if the gcloud CLI has installed it.
fn jar() -> Option<PathBuf> {
    let roots =
        ["/usr/lib/google-cloud-sdk", "/opt/google-cloud-sdk", "/snap/google-cloud-cli/current"];
    let home = std::env::var("HOME").unwrap_or_default();
    let own = std::env::var("CLOUDSDK_ROOT_DIR").ok();
    let roots = roots.iter().map(ToString::to_string).chain(own);
    roots.chain([format!("{home}/google-cloud-sdk")]).find_map(|root| {
        let mut jars = std::fs::read_dir(PathBuf::from(root).join(JAR)).ok()?.flatten();
        jars.find(|file| file.file_name().to_string_lossy().ends_with("-all.jar"))
            .map(|file| file.path())
    })
}

/// Emulator process, which ends when this is dropped.
pub struct Emulator {
    pub address: SocketAddr,
    _process: Process,
}

impl Emulator {
    /// Starts an emulator. Returns `None`, and says so, if it is not installed.
    pub fn start() -> Option<Self> {
        let Some(jar) = jar() else {
            eprintln!(
                "NOT TESTED: the Pub/Sub emulator (gcloud's pubsub-emulator) is not installed"
            );
            return None;
        };
        std::iter::repeat_with(|| Self::start_on(&jar, free_port())).find_map(|started| started)
    }

    /// Starts an emulator on a port. Returns `None` if another process has the port: the emulator
    /// then logs that and goes on without listening.
    fn start_on(jar: &PathBuf, port: u16) -> Option<Self> {
        let mut command = Command::new("java");
        command.arg("-jar").arg(jar).arg("--host=127.0.0.1");
        let process = Process::start(command.arg(format!("--port={port}")).stdout(Stdio::null()));
        // A connection would not prove that this emulator listens: another process could.
        let listening = format!("listening on {port}");
        let listens = eventually("the emulator listens", || {
            let log = process.log();
            let has = |text: &str| log.iter().any(|line| line.contains(text));
            has(&listening).then_some(true).or_else(|| has("BindException").then_some(false))
        });
        listens.then(|| Self { address: ([127, 0, 0, 1], port).into(), _process: process })
    }

    /// Kills the emulator and starts another one on its port, without topics and subscriptions.
    #[cfg(feature = "pull")]
    pub fn restart(self) -> Self {
        let port = self.address.port();
        drop(self);
        Self::start_on(&jar().unwrap(), port).expect("the port is free")
    }

    /// Sends a request to the REST API and returns the answer.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("Content-Type", "application/json")];
        let path = format!("/v1/projects/test/{path}");
        let body = body.to_string();
        let answer = http1::request(self.address, method, &path, &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub fn publish(&self, topic: &str, messages: &Value) {
        let path = format!("topics/{topic}:publish");
        self.call("POST", &path, &serde_json::json!({ "messages": messages }));
    }
}

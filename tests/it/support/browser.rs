//! Chromium, driven over `WebDriver`.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{eventually, http1, process::installed};

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: tempfile::TempDir,
}

/// Starts chromedriver. Returns `None` if it ends before it says which port it has.
fn start_driver() -> Option<(Child, SocketAddr)> {
    let mut driver = Command::new("chromedriver");
    let driver = driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut driver = driver.spawn().unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let port = line.split("successfully on port ").nth(1)?;
        port.trim_end_matches('.').parse::<u16>().ok()
    });
    let Some(port) = port else {
        driver.wait().unwrap();
        return None;
    };
    // A driver whose output nobody reads stops.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some((driver, SocketAddr::from(([127, 0, 0, 1], port))))
}

impl Browser {
    /// Chromium without a window, and without a look at the network beyond this machine.
    pub fn start() -> Self {
        assert!(installed("chromedriver"), "chromium-driver is not installed: run scripts/test");
        // chromedriver ends if another process takes the port that it has found free.
        let (driver, address) =
            (0..5).find_map(|_| start_driver()).expect("chromedriver says its port");
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self { driver, address, session: String::new(), profile };
        let folder = format!("--user-data-dir={}", browser.profile.path().display());
        let options = json!({ "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", folder,
        ]});
        // Certificates are made for the run.
        let wanted = json!({
            "acceptInsecureCerts": true,
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let session = browser.call("POST", "/session", &wanted);
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("Content-Type", "application/json")];
        let answer = http1::request(self.address, method, path, &headers, body.as_bytes());
        let value = answer.json()["value"].clone();
        assert_eq!(answer.status, 200, "{path}: {value}");
        value
    }

    pub fn open(&self, url: &str) {
        self.call("POST", &format!("{}/url", self.session), &json!({ "url": url }));
    }

    /// Runs a function's body and returns what it returns.
    pub fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.call("POST", &format!("{}/execute/sync", self.session), &body)
    }

    /// Presses a key where the focus is.
    pub fn press(&self, key: &str) {
        let keys = ["keyDown", "keyUp"].map(|what| json!({ "type": what, "value": key }));
        let body = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] });
        self.call("POST", &format!("{}/actions", self.session), &body);
    }

    /// Sends a command of Chromium's own protocol, such as one that changes the window. Returns its answer.
    pub fn command(&self, name: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": name, "params": parameters });
        self.call("POST", &format!("{}/goog/cdp/execute", self.session), &body)
    }

    /// Returns the new lines of the console.
    pub fn console(&self) -> Vec<String> {
        let body = json!({ "type": "browser" });
        let lines = self.call("POST", &format!("{}/se/log", self.session), &body);
        let text = |line: &Value| line["message"].as_str().unwrap().to_owned();
        lines.as_array().unwrap().iter().map(text).collect()
    }

    pub fn until(&self, what: &str, script: &str) -> Value {
        eventually(what, || {
            Some(self.run(script)).filter(|value| *value == true || value.is_array())
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.call("DELETE", &self.session, &Value::Null);
        }
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}

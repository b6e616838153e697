//! Servers beside each other: a fresh process for each run, in an order that rotates, on a core of
//! its own; then medians, and ratios within each round, since a machine's mood changes over hours.

mod issuer;
mod picture;
mod records;
mod scenarios;
mod servers;
mod statistics;
mod table;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    process::Command,
};

use clap::Parser;
use serde_json::{Map, Value, json};

use crate::{
    Result,
    compare::{
        issuer::Issuer,
        records::Records,
        scenarios::{Entry, Scenario},
        servers::{Binaries, Running},
    },
    report::object,
};

/// Compares Stream Events with a floor, a naive server and nginx with nchan. Writes one line of
/// JSON per run into target/bench/runs.jsonl and a table to the terminal.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
pub struct Arguments {
    /// Names of scenarios (all that are listed by --list, if none is given).
    scenarios: Vec<String>,
    /// How often each is run. Nine are wanted for a judgement.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A smoke test of the tools in less than two minutes: one round, few streams, one second.
    #[arg(long)]
    quick: bool,
    /// Only these servers.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Writes a picture of the figures for the README.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Says which scenarios and servers there are.
    #[arg(long)]
    list: bool,
    /// Where the binaries are.
    #[arg(long, default_value = "target/dist", hide = true)]
    binaries: PathBuf,
    #[arg(long, default_value = "target/bench/runs.jsonl", hide = true)]
    runs: PathBuf,
}

/// Runs. Whether all went well.
///
/// # Errors
/// When it could not go on.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let scenarios = chosen(arguments)?;
    if arguments.list {
        scenarios.iter().for_each(Scenario::print);
        return Ok(true);
    }
    if let Some(folder) = arguments.runs.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(&arguments.runs)?;
    writeln!(file, "{}", Value::Object(machine()))?;
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let mut runner = Runner {
        binaries: Binaries::new(&arguments.binaries)?,
        issuer: Issuer::start()?,
        records: Records::default(),
        file,
    };
    for scenario in &scenarios {
        for round in 0..rounds {
            runner.round(scenario, round)?;
        }
        table::print(scenario, &runner.records);
    }
    if let Some(path) = &arguments.svg {
        fs::write(path, picture::draw(&runner.records))?;
    }
    Ok(runner.records.failed == 0)
}

fn chosen(arguments: &Arguments) -> Result<Vec<Scenario>> {
    let mut all = scenarios::all(arguments.quick);
    let known = |name: &String| all.iter().any(|scenario| scenario.name == name);
    if let Some(unknown) = arguments.scenarios.iter().find(|name| !known(name)) {
        return Err(format!("{unknown}: no such scenario, see --list").into());
    }
    let is_asked = |name: &str| arguments.scenarios.iter().any(|asked| asked == name);
    all.retain(|scenario| arguments.scenarios.is_empty() || is_asked(scenario.name));
    if !arguments.servers.is_empty() {
        for scenario in &mut all {
            scenario.entries.retain(|entry| {
                arguments.servers.iter().any(|server| server == entry.server.name())
            });
        }
    }
    Ok(all)
}

struct Runner {
    binaries: Binaries,
    issuer: Issuer,
    records: Records,
    file: fs::File,
}

impl Runner {
    /// All servers of a scenario once.
    fn round(&mut self, scenario: &Scenario, round: usize) -> Result<()> {
        let count = scenario.entries.len();
        let mut found = Vec::new();
        for at in 0..count {
            let entry = &scenario.entries[(at + round) % count];
            eprintln!("{} {}/{}: {}", scenario.name, round + 1, at + 1, entry.label);
            match self.one(entry) {
                Ok(report) => found.push((entry, report)),
                Err(err) => {
                    eprintln!("  FAILED: {err}");
                    self.records.failed += 1;
                    self.note(scenario, entry, round, &object(json!({"failed": err.to_string()})))?;
                }
            }
        }
        net_costs(&mut found);
        for (entry, report) in found {
            self.note(scenario, entry, round, &report)?;
            self.records.add(scenario.name, &entry.label, round, report);
        }
        Ok(())
    }

    fn one(&self, entry: &Entry) -> Result<Map<String, Value>> {
        let server = Running::start(entry.server, &self.binaries, &self.issuer)?;
        let mut command = self.binaries.load();
        command.args(["--dialect", entry.server.dialect()]);
        command.args([
            "--address",
            &server.address.to_string(),
            "--pid",
            &server.pid().to_string(),
        ]);
        if entry.server.wants_token() {
            command.arg("--token").arg(self.issuer.token_file());
        }
        let output = command.args(entry.load.split_whitespace()).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        Ok(object(serde_json::from_slice(&output.stdout)?))
    }

    fn note(
        &mut self,
        scenario: &Scenario,
        entry: &Entry,
        round: usize,
        report: &Map<String, Value>,
    ) -> Result<()> {
        let mut line = object(json!({
            "scenario": scenario.name,
            "label": entry.label,
            "server": entry.server.name(),
            "round": round,
            "load": entry.load,
        }));
        line.extend(report.clone());
        Ok(writeln!(self.file, "{}", Value::Object(line))?)
    }
}

/// The cost of a delivery less that of its push, where a run without streams says what that is.
fn net_costs(found: &mut [(&Entry, Map<String, Value>)]) {
    let number = |report: &Map<String, Value>, name: &str| report.get(name).and_then(Value::as_f64);
    for at in 0..found.len() {
        let (entry, report) = &found[at];
        let Some(minus) = &entry.minus else { continue };
        let pushes = found.iter().find(|(other, _)| other.label == *minus);
        let net = pushes.and_then(|(_, pushes)| {
            let push_us = number(pushes, "server_us_per_message")?;
            let with = number(report, "server_cpu_s")? * 1e6;
            let messages = number(report, "messages")?;
            Some((with - push_us * messages) / number(report, "deliveries")?)
        });
        if let Some(net) = net {
            found[at].1.insert("net_us_per_delivery".to_owned(), net.into());
        }
    }
}

/// Where this was measured.
fn machine() -> Map<String, Value> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    object(json!({
        "machine": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "commit": commit.unwrap_or_default(),
    }))
}

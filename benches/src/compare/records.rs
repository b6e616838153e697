//! What runs found.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Reports by scenario, label and round.
#[derive(Debug, Default)]
pub struct Records {
    reports: BTreeMap<(String, String), BTreeMap<usize, Map<String, Value>>>,
    pub failed: usize,
}

impl Records {
    pub fn add(&mut self, scenario: &str, label: &str, round: usize, report: Map<String, Value>) {
        let rounds = self.reports.entry((scenario.to_owned(), label.to_owned())).or_default();
        rounds.insert(round, report);
    }

    /// A figure of each round in which there is one.
    pub fn figures(&self, scenario: &str, label: &str, figure: &str) -> BTreeMap<usize, f64> {
        let rounds = self.reports.get(&(scenario.to_owned(), label.to_owned()));
        let number = |(round, report): (&usize, &Map<String, Value>)| {
            Some((*round, report.get(figure)?.as_f64()?))
        };
        rounds.into_iter().flatten().filter_map(number).collect()
    }

    /// Of those rounds that both have: one divided by the other.
    pub fn ratios(&self, scenario: &str, label: &str, base: &str, figure: &str) -> Vec<f64> {
        let base = self.figures(scenario, base, figure);
        let own = self.figures(scenario, label, figure);
        own.iter().filter_map(|(round, own)| Some(own / base.get(round)?)).collect()
    }
}

//! The table on the terminal.

use crate::compare::{
    records::Records,
    scenarios::{Figure, Scenario},
    statistics::{lower_bound, median, span, upper_bound},
};

/// Prints a scenario: for each figure and server the median with smallest and largest, and the
/// ratio to the server that it is compared with.
pub fn print(scenario: &Scenario, records: &Records) {
    println!("\n{}: {}", scenario.name, scenario.about);
    for figure in scenario.figures {
        let bound = if figure.more_is_better { "at least" } else { "at most" };
        println!("  {}; ratio to {}, with 90 % {bound}", figure.about, figure.base);
        for entry in &scenario.entries {
            println!("    {}", line(scenario.name, &entry.label, figure, records));
        }
    }
}

fn line(scenario: &str, label: &str, figure: &Figure, records: &Records) -> String {
    let values: Vec<_> = records.figures(scenario, label, figure.key).into_values().collect();
    if values.is_empty() {
        return format!("{label:<28} –");
    }
    let cells = |values: &[f64]| {
        let (least, most) = span(values);
        [median(values), least, most].map(number)
    };
    let [middle, least, most] = cells(&values);
    let value = format!("{label:<28} {middle:>9} ({least} – {most})");
    let ratios = records.ratios(scenario, label, figure.base, figure.key);
    if ratios.is_empty() || label == figure.base || ratios.iter().any(|ratio| !ratio.is_finite()) {
        return value;
    }
    let [middle, least, most] = cells(&ratios);
    let bound = if figure.more_is_better { lower_bound(&ratios) } else { upper_bound(&ratios) };
    let bound = bound.map_or_else(|| "–".to_owned(), number);
    format!("{value:<62} × {middle} ({least} – {most}), {bound}")
}

/// Three digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match () {
        () if 1e6 <= size => format!("{:.2}M", value / 1e6),
        () if 1e4 <= size => format!("{:.1}k", value / 1e3),
        () if 100.0 <= size => format!("{value:.0}"),
        () if 10.0 <= size => format!("{value:.1}"),
        () => format!("{value:.2}"),
    }
}

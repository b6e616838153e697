//! The picture for the README: four panels of bars, readable on a light and on a dark page.

use std::fmt::Write as _;

use crate::compare::{records::Records, statistics::median, table::number};

/// Name, colour.
const BARS: [(&str, &str, &str); 4] = [
    ("gateway", "Stream Events", "#2f81f7"),
    ("nchan", "nginx + nchan", "#8b949e"),
    ("naive", "naive actix-web", "#8b949e"),
    ("floor", "floor: plain send", "#c9a227"),
];
/// Scenario, figure, title, whether more is better. Of scenarios in question the first that was
/// run.
const PANELS: [(&[&str], &str, &str, bool); 4] = [
    (
        &["fixed-1000", "fixed-5000", "fixed-100"],
        "server_us_per_delivery",
        "CPU per delivery, 50,000/s, µs",
        false,
    ),
    (
        &["closed-1000", "closed-5000", "closed-100"],
        "deliveries_per_s",
        "Deliveries per second on one core",
        true,
    ),
    (
        &["idle-15000", "idle-5000", "idle-1000"],
        "pss_per_stream",
        "Memory per idle stream, bytes",
        false,
    ),
    (&["replay"], "server_us_per_stream", "CPU to replay 100 events, µs per stream", false),
];

const WIDTH: usize = 860;
const PANEL_WIDTH: usize = 410;
const PANEL_HEIGHT: usize = 150;
const BARS_FROM: usize = 130;
const BAR_MAX: f64 = 200.0;

/// Draws what there is.
pub fn draw(records: &Records) -> String {
    let height = 2 * PANEL_HEIGHT + 50;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Stream Events beside nginx with nchan, a naive actix-web server and a floor\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<style>\n\
         text {{ fill: #1f2328 }}\n.quiet {{ fill: #59636e }}\n\
         @media (prefers-color-scheme: dark) {{\n\
         text {{ fill: #f0f6fc }}\n.quiet {{ fill: #9198a1 }}\n}}\n\
         </style>\n"
    );
    for (at, panel) in PANELS.iter().enumerate() {
        let (x, y) = (10 + at % 2 * (PANEL_WIDTH + 20), 10 + at / 2 * PANEL_HEIGHT);
        draw_panel(&mut svg, records, panel, x, y);
    }
    let y = height - 14;
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<text class=\"quiet\" x=\"10\" y=\"{y}\">One worker on one core, the client on another, \
         loopback, medians. scripts/bench measures this on your machine.</text>\n</svg>"
    );
    svg
}

fn draw_panel(
    svg: &mut String,
    records: &Records,
    (scenarios, figure, title, more_is_better): &(&[&str], &str, &str, bool),
    x: usize,
    y: usize,
) {
    let of = |scenario: &str, server: &str| {
        let values: Vec<_> = records.figures(scenario, server, figure).into_values().collect();
        (!values.is_empty()).then(|| median(&values))
    };
    let scenario = scenarios.iter().find(|name| of(name, "gateway").is_some());
    let better = if *more_is_better { "more is better" } else { "less is better" };
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{}\" font-weight=\"600\">{title}</text>\
         <text class=\"quiet\" x=\"{}\" y=\"{}\" text-anchor=\"end\" font-size=\"11\">{better}</text>",
        y + 14,
        x + PANEL_WIDTH,
        y + 14
    );
    let values = BARS.map(|(server, ..)| scenario.and_then(|name| of(name, server)));
    let most = values.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
    for (row, ((_, name, colour), value)) in BARS.iter().zip(values).enumerate() {
        let top = y + 26 + row * 26;
        let middle = top + 13;
        let length = value.map_or(0.0, |value| (value / most * BAR_MAX).max(2.0));
        let shown = value.map_or_else(|| "–".to_owned(), number);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{middle}\">{name}</text>\
             <rect x=\"{}\" y=\"{top}\" width=\"{length:.0}\" height=\"18\" rx=\"2\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{middle}\">{shown}</text>",
            x + BARS_FROM,
            (x + BARS_FROM) as f64 + length + 6.0
        );
    }
}

//! docs/check.md has every setting that `check` prints.

use stream_events::cli::check::settings;

use super::read;

#[test]
fn the_page_has_every_setting_that_the_program_prints() {
    let page = read("docs/check.md");
    let missing: Vec<_> = settings::rows()
        .map(|(list, program, setting)| format!("| {list} | {program} | {setting} |"))
        .filter(|row| !page.contains(row))
        .collect();
    assert!(missing.is_empty(), "docs/check.md lacks:\n{}", missing.join("\n"));
}

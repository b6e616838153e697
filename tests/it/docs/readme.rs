//! The documentation says what the program does.

use std::path::Path;

use stream_events::config::{Config, Flag, Mode, Texts, flags};

use super::read;

fn row(flag: &Flag) -> String {
    let default = match (flag.default, flag.dev_default) {
        (None, _) => "required".to_owned(),
        (Some(""), _) => "–".to_owned(),
        (Some(default), Some(dev)) if dev != default => format!("`{default}`; `dev`: `{dev}`"),
        (Some(default), _) => format!("`{default}`"),
    };
    let many = if flag.is_repeatable { " Repeatable." } else { "" };
    let help = flag.help.replace('|', "\\|");
    if flag.is_secret {
        return format!("| `{}` | {default} | {help}. Only from the environment. |", flag.env());
    }
    format!(
        "| `--{} {}` | {default} | {help}.{many} |",
        flag.name,
        flag.value_name.replace('|', "\\|")
    )
}

/// Compares each flag's row in docs/configuration.md with the table of flags.
#[test]
fn the_documents_flag_table_is_that_of_the_program() {
    let document = read("docs/configuration.md");
    let rows: Vec<_> = flags().map(row).collect();
    let missing: Vec<_> = rows.iter().filter(|row| !document.contains(*row)).cloned().collect();
    assert!(missing.is_empty(), "missing in docs/configuration.md:\n{}", missing.join("\n"));
    let count = document.lines().filter(|line| line.starts_with("| `--")).count();
    assert_eq!(
        count,
        flags().filter(|flag| !flag.is_secret).count(),
        "docs/configuration.md has rows of flags that do not exist"
    );
}

/// The settings of `k8s/base` start a gateway.
#[test]
fn the_settings_of_kubernetes_are_read() {
    let mut texts = Texts::new();
    for line in read("k8s/base/settings.env").lines() {
        let Some((name, text)) = line.split_once('=') else { continue };
        let Some(name) = name.strip_prefix("STREAM_EVENTS_") else { continue };
        let flag = flags().find(|flag| flag.env() == format!("STREAM_EVENTS_{name}"));
        let flag = flag.unwrap_or_else(|| panic!("{name} is no flag's"));
        texts.insert(flag.name, vec![text.to_owned()]);
    }
    assert!(10 < texts.len());
    let config = Config::from_texts(Mode::Serve, &texts, None).unwrap();
    let deployment = read("k8s/base/deployment.yaml");
    let grace = deployment.lines().find_map(|line| {
        line.trim().strip_prefix("terminationGracePeriodSeconds: ")?.parse::<u64>().ok()
    });
    let leaving = (config.drain_delay + config.drain_timeout).as_secs() + 1;
    assert!(leaving < grace.unwrap(), "Kubernetes would kill the pod while it drains");
    assert!(deployment.contains("replicas: 1\n"), "rings in memory allow one replica");
}

/// The guarantees name their tests.
#[test]
fn the_files_that_the_readme_names_exist() {
    let readme = read("README.md");
    let is_rust = |name: &&str| Path::new(name).extension().is_some_and(|it| it == "rs");
    let is_named = |name: &&str| name.starts_with("tests/") || name.starts_with("src/");
    let names = readme.split('`').filter(is_rust).filter(is_named);
    let (found, missing): (Vec<_>, Vec<_>) =
        names.partition(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name).exists());
    assert!(10 < found.len());
    assert!(missing.is_empty(), "{missing:?}");
}

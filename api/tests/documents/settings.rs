use std::collections::BTreeMap;

use clap::{Command, CommandFactory as _};
use dibs_api::settings::ApiSettings;
use dibs_worker::settings::WorkerSettings;

use crate::read;

/// Refused when they are empty, but not while they are parsed: some commands need no server.
const REQUIRED: [&str; 2] = ["DATABASE_URL", "REDIS_URL"];

/// What the document says of a setting: its programs, and its default.
type Documented = (String, String);

#[test]
fn configuration_md_lists_every_setting_with_its_default() {
    let mut expected: BTreeMap<String, Documented> = settings(&WorkerSettings::command(), "worker");
    for (name, (_, default)) in settings(&ApiSettings::command(), "API") {
        let both = expected.contains_key(&name);
        let programs = if both { "both" } else { "API" };
        expected.insert(name, (programs.into(), default));
    }
    let document = read("docs/configuration.md");
    let mut found = BTreeMap::new();
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, programs, default, range, meaning] = cells[..] else { panic!("five cells in {row}") };
        assert!(!range.is_empty() && meaning.ends_with('.'), "a range and a meaning in {row}");
        found.insert(name.trim_matches('`').to_owned(), (programs.to_owned(), default.trim_matches('`').to_owned()));
    }
    for (name, setting) in &expected {
        let documented = found.get(name).unwrap_or_else(|| panic!("{name} is not in docs/configuration.md"));
        assert_eq!(documented, setting, "program and default of {name} in docs/configuration.md");
    }
    for name in found.keys() {
        assert!(expected.contains_key(name), "{name} is in docs/configuration.md, but no program has it");
    }
}

fn settings(command: &Command, program: &str) -> BTreeMap<String, Documented> {
    let mut settings = BTreeMap::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_env() else { continue };
        let default = match argument.get_default_values() {
            [] => "none".to_owned(),
            _ if REQUIRED.contains(&&*name.to_string_lossy()) => "required".to_owned(),
            [default] if default.is_empty() => "empty".to_owned(),
            [default, ..] => default.to_string_lossy().into_owned(),
        };
        settings.insert(name.to_string_lossy().into_owned(), (program.to_owned(), default));
    }
    assert!(settings.len() > 10, "the settings of {program} are found");
    settings
}

//! The commands of the documents, as the command line understands them. `make lint` runs this test: it needs no server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Parser as _, error::ErrorKind};
use dibs_loadtest::cli::Cli;

#[test]
fn every_documented_command_of_the_load_test_has_valid_arguments() {
    let mut checked = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        let mut in_block = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("```") {
                in_block = !in_block && matches!(line, "```bash" | "```console" | "```sh");
                continue;
            }
            let Some(arguments) = in_block.then(|| arguments(line)).flatten() else { continue };
            let parsed = Cli::try_parse_from(&arguments);
            let place = format!("{}:{}", path.display(), number + 1);
            if let Err(error) = parsed {
                // The environment names the stores, as the documents say.
                assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument, "{place}: {error}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 8, "{checked} commands");
}

#[test]
fn arguments_are_those_of_the_program() {
    let words = |line| arguments(line).unwrap_or_default().join("|");
    assert_eq!(words("dibs-loadtest audit --coupon 7   # one campaign"), "dibs-loadtest|audit|--coupon|7");
    assert_eq!(words("make load LOAD_ARGUMENTS='--users 2'"), "dibs-loadtest|burst|--users|2");
    assert_eq!(words("make load LOAD_ARGUMENTS='shop --seconds 60'"), "dibs-loadtest|shop|--seconds|60");
    assert_eq!(words("make load"), "dibs-loadtest|burst");
    assert_eq!(words("make test"), "");
}

/// The arguments of a line that runs `dibs-loadtest`, by itself or by `make load`.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next().unwrap_or_default().trim();
    let words = |text: &str| text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    if line.starts_with("dibs-loadtest ") {
        return Some(words(line));
    }
    let rest = line.strip_prefix("make load")?.trim();
    let given = rest.strip_prefix("LOAD_ARGUMENTS=").unwrap_or_default().trim_matches('\'');
    // As scripts/load does.
    let scenario = if given.starts_with("shop") || given.starts_with("burst") { "" } else { "burst" };
    Some(words(&format!("dibs-loadtest {scenario} {given}")))
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut folders = vec![root.to_path_buf(), root.join("docs")];
    folders.extend(["integrations", "decisions"].map(|name| root.join("docs").join(name)));
    let entries = folders.into_iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect()
}

//! Commands of documents that no test runs: their shell parses, and the targets of `make` exist. `dibs-loadtest` checks
//! its own; blocks of `sh` are run by `api/tests/it/documented_commands.rs`.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use crate::{read, sources::documents};

/// The fences that a block of commands may have, and whether a test runs it.
const FENCES: [&str; 3] = ["sh", "bash", "console"];
/// What may stand in a block without being a command.
const OTHERS: [&str; 6] = ["", "output", "output eventually", "mermaid", "json", "http"];

struct Block {
    place: String,
    fence: String,
    text: String,
}

#[test]
fn every_block_of_commands_parses_and_its_targets_of_make_exist() {
    let targets: BTreeSet<String> = read("Makefile")
        .lines()
        .filter_map(|line| line.split_once(": ## "))
        .map(|(target, _)| target.to_owned())
        .collect();
    let mut checked = 0;
    for Block { place, fence, text } in blocks() {
        if !FENCES.contains(&fence.as_str()) {
            assert!(OTHERS.contains(&fence.as_str()), "{place}: a block is one of {FENCES:?} or {OTHERS:?}");
            continue;
        }
        let commands = if fence == "console" { typed(&text) } else { text };
        // Reads the commands and runs none.
        let parsed = Command::new("bash").args(["-n", "-c", &commands]).stdout(Stdio::null()).output().expect("bash");
        assert!(parsed.status.success(), "{place}: {}", String::from_utf8_lossy(&parsed.stderr));
        let made = commands.lines().filter_map(|line| line.split_once("make ").map(|(_, rest)| rest));
        for target in made.filter_map(|rest| rest.split_whitespace().next()) {
            assert!(targets.contains(target), "{place}: Makefile has no target {target}");
        }
        checked += 1;
    }
    assert!(checked > 30, "{checked} blocks");
}

/// What a user types at the prompts of a session.
fn typed(text: &str) -> String {
    text.lines().filter_map(|line| line.strip_prefix("$ ")).collect::<Vec<_>>().join("\n")
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (path, text) in documents() {
        let mut open = false;
        for (number, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), open) {
                (Some(fence), false) => {
                    blocks.push(Block {
                        place: format!("{path}:{}", number + 1),
                        fence: fence.into(),
                        text: String::new(),
                    });
                    open = true;
                }
                (Some(_), true) => open = false,
                (None, true) => blocks.last_mut().expect("a block").text.extend([line, "\n"]),
                (None, false) => {}
            }
        }
    }
    blocks
}

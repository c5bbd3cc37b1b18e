//! Files and functions stay short enough to be read in one go. Clippy has the limit of functions, in clippy.toml.

use crate::sources::files;

const SOURCE_LINES: usize = 300;
const TEST_LINES: usize = 600;

#[test]
fn no_source_file_has_more_than_300_lines_of_code_and_no_test_file_more_than_600() {
    let folders = ["api", "common", "worker", "loadtest"];
    let mut found = Vec::new();
    for (path, text) in files(&folders, &[".rs"]) {
        let is_test = path.contains("/tests/") || path.ends_with("tests.rs");
        let limit = if is_test { TEST_LINES } else { SOURCE_LINES };
        // Tests stand at the end of a source file.
        let code = if is_test { &text } else { text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default() };
        let lines = code_lines(code);
        if lines > limit {
            found.push(format!("{path} has {lines} lines of code, more than {limit}: split it by subject"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Lines that are neither blank nor a comment.
fn code_lines(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn blank_lines_and_comments_are_no_code() {
    assert_eq!(code_lines("//! A file.\n\nfn main() {\n    // Nothing.\n}\n"), 2);
}

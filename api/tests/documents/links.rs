use std::path::Path;

use crate::{
    read,
    sources::{documents, root},
};

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&path).parent().unwrap_or(Path::new(""));
            let file = if file.is_empty() { path.clone() } else { folder.join(file).to_string_lossy().into_owned() };
            let there = root().join(&file).exists();
            if !there || !heading.is_empty() && !headings(&read(&file)).iter().any(|known| known == heading) {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Code spans that look like paths of the repository.
#[test]
fn paths_in_documents_exist() {
    const FOLDERS: [&str; 9] =
        ["api/", "common/", "deploy/", "docs/", "loadtest/", "lua/", "migrations/", "scripts/", "worker/"];
    let mut broken = Vec::new();
    for (path, text) in documents() {
        for span in text.split('`').skip(1).step_by(2) {
            let looks_like_a_path = FOLDERS.iter().any(|folder| span.starts_with(folder));
            if looks_like_a_path && !span.contains([' ', '*', '{', '<', '\n']) && !span.contains("CODE") {
                let file = span.split(['#', ':']).next().unwrap_or_default();
                if !root().join(file).exists() {
                    broken.push(format!("{path}: {span}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "paths that do not exist:\n{}", broken.join("\n"));
}

/// Anchors as GitHub makes them.
pub fn headings(text: &str) -> Vec<String> {
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

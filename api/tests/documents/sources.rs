use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Files below `folders` whose names end with one of `endings`: path from the root, and text.
pub fn files(folders: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    found.retain(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
    found.sort();
    let relative = |path: &Path| path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).expect("text"))).collect()
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_path_buf());
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.map(|entry| entry.expect("an entry")) {
        // Builds and data of servers are no sources.
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with('.') && name != "target" {
            collect(&entry.path(), found);
        }
    }
}

pub fn documents() -> Vec<(String, String)> {
    files(&[""], &[".md"])
}

/// chrono's own serializer leaves out a fraction of zero.
#[test]
fn every_time_that_is_serialized_has_three_digits_of_milliseconds() {
    const SERIALIZER: &str = "clock::serialize\"";
    let mut found = Vec::new();
    let mut serialized = 0;
    for (path, text) in files(&["common/src", "api/src", "worker/src"], &[".rs"]) {
        for item in text.split("#[derive(").skip(1) {
            let item = item.split("\n}").next().unwrap_or_default();
            let (traits, body) = item.split_once(")]").unwrap_or_default();
            if !traits.split(',').any(|name| name.trim() == "Serialize") {
                continue;
            }
            let mut attributes = String::new();
            for line in body.lines().map(str::trim) {
                let is_time = ["DateTime<Utc>", "Timestamp"].iter().any(|kind| line.contains(kind));
                match () {
                    () if line.starts_with("#[") => attributes.push_str(line),
                    () if line.starts_with("//") => {}
                    () if is_time && attributes.contains(SERIALIZER) => serialized += 1,
                    () if is_time => found.push(format!("{path}: {line}")),
                    () => {}
                }
                if !line.starts_with(['#', '/']) {
                    attributes.clear();
                }
            }
        }
    }
    assert!(serialized > 30, "{serialized}");
    assert_eq!(found, Vec::<String>::new(), "fields without serialize_with = \"{SERIALIZER}");
}

use crate::read;

/// The value after `key` up to the end of its line, without quotes.
fn value<'t>(text: &'t str, key: &str) -> &'t str {
    let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key:?}")).1;
    rest.lines().next().unwrap_or_default().trim_matches('"')
}

#[test]
fn the_image_is_built_by_the_toolchain_of_the_workspace_and_of_its_crates() {
    let channel = value(&read("rust-toolchain.toml"), "channel = ").to_owned();
    let dockerfile = read("Dockerfile");
    // rustup takes the toolchain of the file in the folder where it runs.
    let position = |text: &str| dockerfile.find(text).unwrap_or_else(|| panic!("Dockerfile: no {text:?}"));
    assert!(position("COPY rust-toolchain.toml ./") < position("cargo build"), "the toolchain comes before the build");
    assert!(read(".dockerignore").contains("!rust-toolchain.toml"), ".dockerignore leaves rust-toolchain.toml out");
    // Dependencies are built from the manifests alone, of every crate of the workspace.
    let members = value(&read("Cargo.toml"), "members = ").to_owned();
    for member in members.split('"').skip(1).step_by(2) {
        position(&format!("COPY {member}/Cargo.toml {member}/"));
    }
    // A version of two numbers is the oldest that works; it must not be newer than the toolchain.
    let number =
        |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().expect("a number")).collect() };
    assert!(number(value(&read("Cargo.toml"), "rust-version = ")) <= number(&channel), "rust-version of Cargo.toml");
}

use crate::read;

/// The value after `key` up to the end of its line, without quotes.
fn value<'t>(text: &'t str, key: &str) -> &'t str {
    let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key:?}")).1;
    rest.lines().next().unwrap_or_default().trim_matches('"')
}

#[test]
fn the_image_is_built_by_the_toolchain_of_the_workspace() {
    let channel = value(&read("rust-toolchain.toml"), "channel = ").to_owned();
    let dockerfile = read("Dockerfile");
    assert_eq!(value(&dockerfile, "ARG RUST_VERSION="), channel, "Dockerfile and rust-toolchain.toml");
    assert!(dockerfile.contains("FROM rust:${RUST_VERSION}-"), "the first image takes RUST_VERSION");
    // A version of two numbers is the oldest that works; it must not be newer than the toolchain.
    let number =
        |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().expect("a number")).collect() };
    assert!(number(value(&read("Cargo.toml"), "rust-version = ")) <= number(&channel), "rust-version of Cargo.toml");
}

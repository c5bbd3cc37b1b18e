use crate::read;

#[test]
fn every_invariant_has_tests_that_exist() {
    let text = read("ARCHITECTURE.md");
    for number in 1..=12 {
        let row = text.lines().find(|line| line.starts_with(&format!("| I{number} |")));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md: no row for I{number}"));
        let tests: Vec<(&str, &str)> = row.split("[`").skip(1).filter_map(|link| link.split_once("`](")).collect();
        assert!(!tests.is_empty(), "I{number} names no test");
        for (name, rest) in tests {
            let path = rest.split(')').next().unwrap_or_default();
            assert!(read(path).contains(&format!("fn {name}(")), "I{number}: {path} has no test {name}");
        }
    }
}

#[test]
fn the_first_documents_stay_short() {
    for (path, most) in [("README.md", 200), ("ARCHITECTURE.md", 300)] {
        let lines = read(path).lines().count();
        assert!(lines <= most, "{path} has {lines} lines, more than {most}: move details to docs/");
    }
}

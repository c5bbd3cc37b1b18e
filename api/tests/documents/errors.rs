use std::collections::BTreeSet;

use dibs_common::error::ErrorCode;

use crate::sources::files;

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let codes: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| code.into_str().to_owned()).collect();
    let mut pages = BTreeSet::new();
    for (path, text) in files(&["docs/errors"], &[".md"]) {
        let code = path.trim_start_matches("docs/errors/").trim_end_matches(".md").to_owned();
        if code == "README" {
            continue;
        }
        let known = ErrorCode::ALL.iter().find(|known| known.into_str() == code);
        let known = known.unwrap_or_else(|| panic!("{path}: there is no code {code}"));
        assert!(text.starts_with(&format!("# {code}\n")), "{path} begins with its code");
        let status = format!("Status: {}", known.status());
        assert!(text.lines().any(|line| line.starts_with(&status)), "{path} says '{status}'");
        for heading in ["## When", "## What to do"] {
            assert!(text.lines().any(|line| line == heading), "{path} has the heading '{heading}'");
        }
        pages.insert(code);
    }
    let missing: Vec<_> = codes.difference(&pages).collect();
    assert!(missing.is_empty(), "codes without a page in docs/errors: {missing:?}");
}

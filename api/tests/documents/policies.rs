use std::collections::BTreeSet;

use dibs_api::{
    access::policy::{Access, POLICIES},
    routes::document,
};
use serde_json::Value;

/// Routes that are not calls of the API.
const UNDOCUMENTED: [&str; 7] =
    ["/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/docs/", "/docs/{*rest}"];

#[test]
fn every_call_of_the_document_has_a_policy_and_every_policy_a_call() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let calls = paths.iter().flat_map(|(path, calls)| {
        calls.as_object().expect("calls").keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    let calls: BTreeSet<(String, String)> = calls.collect();
    let listed = POLICIES.iter().filter(|policy| !UNDOCUMENTED.contains(&policy.path));
    let listed: BTreeSet<(String, String)> = listed.map(|policy| (policy.method.into(), policy.path.into())).collect();
    let without: Vec<_> = calls.difference(&listed).collect();
    assert!(without.is_empty(), "calls without a policy in api/src/access/policy.rs are not served: {without:?}");
    let gone: Vec<_> = listed.difference(&calls).collect();
    assert!(gone.is_empty(), "policies without a call: {gone:?}");
}

#[test]
fn the_document_says_what_each_call_requires() {
    let document = document();
    for policy in POLICIES.iter().filter(|policy| !UNDOCUMENTED.contains(&policy.path)) {
        let call = &document["paths"][policy.path][policy.method.to_lowercase()];
        let (scope, takes_tokens) = match policy.access {
            Access::Public => (None, false),
            Access::Users(scope, _) => (Some(scope), true),
            Access::Administrators(scope) => (Some(scope), false),
            Access::Console(_) => panic!("a page among the calls: {}", policy.path),
        };
        let mut expected: Vec<Value> = scope.iter().map(|scope| serde_json::json!({ "apiKey": [scope] })).collect();
        expected.extend(takes_tokens.then(|| serde_json::json!({ "userToken": [] })));
        assert_eq!(call["security"], Value::Array(expected), "{} {}", policy.method, policy.path);
        for status in ["401", "403"] {
            assert_eq!(call["responses"][status].is_object(), scope.is_some(), "{} {}", policy.method, policy.path);
        }
    }
}

use crate::app::TestApp;

#[test]
fn the_committed_document_is_what_the_code_says() {
    let committed = include_str!("../../openapi.json");
    let generated = dibs_api::routes::document().to_pretty_json().expect("JSON");
    assert!(committed.trim() == generated.trim(), "api/openapi.json is out of date: make openapi");
}

/// Generators of clients name functions by them, and links lead to them.
#[test]
fn every_operation_has_an_id_of_its_own_and_links_lead_to_one() {
    let document = serde_json::to_value(dibs_api::routes::document()).expect("JSON");
    let calls = || {
        document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|path| path.as_object().expect("calls").values())
    };
    let ids: Vec<&str> = calls().map(|call| call["operationId"].as_str().expect("an id")).collect();
    let unique: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    let responses = calls().flat_map(|call| call["responses"].as_object().expect("responses").values());
    let links: Vec<&str> = responses
        .filter_map(|response| response["links"].as_object())
        .flat_map(|links| links.values().map(|link| link["operationId"].as_str().expect("an id")))
        .collect();
    assert_eq!(links.len(), 16);
    assert!(links.iter().all(|link| unique.contains(link)), "{links:?}");
}

#[tokio::test]
async fn the_document_and_its_page_are_served_from_within() {
    let app = TestApp::new().await;
    assert_eq!(app.get("/openapi.json").await.body["info"]["title"], "Dibs");
    let page = app.request(reqwest::Method::GET, "/docs/").send().await.expect("a page");
    assert_eq!(page.status(), 200);
    let text = page.text().await.expect("text");
    assert!(text.contains("swagger-ui") && !text.contains("https://"), "the page needs nothing from elsewhere");
    app.end().await;
}

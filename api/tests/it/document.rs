use crate::app::TestApp;

#[test]
fn the_committed_document_is_what_the_code_says() {
    let committed = include_str!("../../openapi.json");
    assert!(
        committed.trim() == format!("{:#}", dibs_api::routes::document()),
        "api/openapi.json is out of date: make openapi"
    );
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

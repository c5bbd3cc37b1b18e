use dibs_common::error::ErrorCode;
use reqwest::Method;

use crate::app::TestApp;

/// The content type and the text of a page.
async fn read(app: &TestApp, path: &str, accept: &str) -> (String, String) {
    let response = app.request(Method::GET, path).header("accept", accept).send().await.expect("a page");
    assert_eq!(response.status(), 200, "{path}");
    let content_type = response.headers()["content-type"].to_str().expect("text").to_owned();
    (content_type, response.text().await.expect("text"))
}

#[tokio::test]
async fn the_type_of_a_problem_leads_to_the_page_of_its_code() {
    let app = TestApp::new().await;
    let refused = app.get("/coupons/1").await;
    assert_eq!(refused.body["type"], "/errors/COUPON_NOT_FOUND");
    let (content_type, text) = read(&app, "/errors/COUPON_NOT_FOUND", "*/*").await;
    assert_eq!(content_type, "text/markdown; charset=utf-8");
    assert!(text.starts_with("# COUPON_NOT_FOUND\n"), "{text}");
    for code in ErrorCode::ALL {
        let path = format!("/errors/{}", code.into_str());
        let (content_type, text) = read(&app, &path, "text/html,*/*;q=0.8").await;
        assert_eq!(content_type, "text/html; charset=utf-8");
        assert!(text.contains(&format!("<h1>{}</h1>", code.into_str())), "{text}");
        assert!(!text.contains(".md"), "{path} links to what is not served: {text}");
    }
    let (_, all) = read(&app, "/errors", "text/html").await;
    for code in ErrorCode::ALL {
        assert!(all.contains(&format!("<a href=\"/errors/{}\">", code.into_str())), "{all}");
    }
    for unknown in ["/errors/NONE", "/errors/README", "/errors/coupon_not_found", "/errors/..%2FREADME"] {
        assert_eq!(app.get(unknown).await.code(), "ROUTE_NOT_FOUND", "{unknown}");
    }
    app.end().await;
}

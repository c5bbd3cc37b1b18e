//! What RFC 9110 and RFC 9112 demand of every call, spoken over a bare connection.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::app::{ADMIN_TOKEN, Answer, TestApp, claim_body};

/// Everything that comes back until the server closes the connection.
async fn exchange(app: &TestApp, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.address).await.expect("a connection");
    stream.write_all(request).await.expect("sent");
    let mut response = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut response));
    // A reset after the response is an end as well.
    let _end = reading.await.expect("the server closes the connection");
    String::from_utf8(response).expect("text")
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_default()
}

/// The value of a header of a response; none when it is missing.
fn header<'r>(response: &'r str, name: &str) -> Option<&'r str> {
    let head = response.split("\r\n\r\n").next()?;
    head.lines().filter_map(|line| line.split_once(": ")).find(|(other, _)| *other == name).map(|(_, value)| value)
}

/// The paths of the document that take `method`, with values that are well formed.
async fn paths(app: &TestApp, method: &str) -> Vec<String> {
    let document = app.get("/openapi.json").await.body;
    let calls = document["paths"].as_object().expect("paths").iter().filter(|(_, calls)| calls[method].is_object());
    calls
        .map(|(path, _)| {
            let id = "01900000-0000-7000-8000-000000000001";
            let ids = ["{orderId}", "{commandId}", "{paymentId}", "{chargeId}"];
            let path = ids.iter().fold(path.clone(), |path, name| path.replace(name, id));
            let numbers = ["{couponId}", "{userId}", "{productId}", "{deadLetterId}", "{apiKeyId}"];
            let path = numbers.iter().fold(path, |path, name| path.replace(name, "1"));
            path.replace("{code}", "COUPON_EXHAUSTED").replace("{key}", "k")
        })
        .collect()
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let app = TestApp::new().await;
    app.environment.product(5_000, 3).await;
    app.environment.campaign(3).await;
    let mut paths = paths(&app, "get").await;
    assert!(paths.len() > 15, "{paths:?}");
    paths.extend(["/points?userId=1", "/health/live", "/openapi.json", "/docs/", "/nothing"].map(str::to_owned));
    for path in paths {
        let ask = async |method: &str| {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: dibs\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\
                 x-request-id: one\r\nconnection: close\r\n\r\n"
            );
            exchange(&app, head.as_bytes()).await
        };
        let (get, head) = (ask("GET").await, ask("HEAD").await);
        let [get_head, get_body] = get.splitn(2, "\r\n\r\n").collect::<Vec<_>>()[..] else { panic!("{get}") };
        assert!(head.ends_with("\r\n\r\n"), "{path}: no body: {head}");
        for name in ["content-type", "content-length", "x-request-id"] {
            assert_eq!(header(&head, name), header(&get, name), "{path}: {name}");
        }
        assert_eq!(status(&head), status(&get), "{path}");
        assert_eq!(header(get_head, "content-length"), Some(&*get_body.len().to_string()), "{path}");
    }
    app.end().await;
}

#[tokio::test]
async fn options_and_wrong_methods_are_answered_with_what_is_allowed() {
    let app = TestApp::new().await;
    for (path, allowed) in [
        ("/orders", "POST,GET,HEAD"),
        ("/coupons/issue", "POST"),
        ("/admin/products/1", "PATCH"),
        ("/coupons/1", "GET,HEAD"),
    ] {
        let options = Answer::of(app.request(Method::OPTIONS, path)).await;
        assert_eq!((options.status.as_u16(), &options.body), (204, &Value::Null), "{path}");
        let wrong = Answer::of(app.request(Method::TRACE, path)).await;
        assert_eq!((wrong.status.as_u16(), wrong.code()), (405, "METHOD_NOT_ALLOWED"));
        for answer in [options, wrong] {
            let mut methods: Vec<&str> = answer.header("allow").expect("a list").split(',').map(str::trim).collect();
            let mut expected: Vec<&str> = allowed.split(',').collect();
            methods.sort_unstable();
            expected.sort_unstable();
            assert_eq!(methods, expected, "{path}");
        }
    }
    assert_eq!(Answer::of(app.request(Method::OPTIONS, "/nothing")).await.code(), "ROUTE_NOT_FOUND");
    app.end().await;
}

#[tokio::test]
async fn a_request_has_one_host() {
    let app = TestApp::new().await;
    for (version, hosts, expected) in
        [("1.1", 0, "400"), ("1.1", 1, "200"), ("1.1", 2, "400"), ("1.0", 0, "200"), ("1.0", 2, "400")]
    {
        let request =
            format!("GET /health/live HTTP/{version}\r\n{}connection: close\r\n\r\n", "host: a\r\n".repeat(hosts));
        let response = exchange(&app, request.as_bytes()).await;
        assert_eq!(status(&response), expected, "HTTP/{version} with {hosts}: {response}");
        assert_eq!(response.contains("\"field\":\"Host\""), expected == "400", "{response}");
    }
    app.end().await;
}

#[tokio::test]
async fn a_body_with_a_content_encoding_is_refused() {
    let app = TestApp::new().await;
    let coupon = app.environment.campaign(3).await.id;
    for encoding in ["gzip", "br", "deflate, gzip", "x"] {
        let request = app.request(Method::POST, "/coupons/issue").header("content-encoding", encoding);
        let answer = Answer::of(request.json(&claim_body(coupon, 1))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (415, "UNSUPPORTED_MEDIA_TYPE"), "{encoding}");
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
    }
    let request = app.request(Method::POST, "/coupons/issue").header("content-encoding", "identity");
    assert_eq!(Answer::of(request.json(&claim_body(coupon, 1))).await.status, 202);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let app = TestApp::new().await;
    let head = "POST /points HTTP/1.1\r\nhost: dibs\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n{";
    let response = exchange(&app, head.as_bytes()).await;
    assert_eq!(status(&response), "408");
    assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    assert_eq!(header(&response, "connection"), Some("close"));
    assert!(response.contains("\"code\":\"REQUEST_TIMEOUT\""), "{response}");
    app.end().await;
}

#[tokio::test]
async fn a_head_that_cannot_be_parsed_is_answered_with_a_request_id() {
    let app = TestApp::new().await;
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000));
    let many_fields = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(200));
    for (request, expected) in
        [("GET / HTTP/1.1\r\nho st: a\r\n\r\n", "400"), (&long_path, "414"), (&many_fields, "431")]
    {
        let response = exchange(&app, request.as_bytes()).await;
        assert_eq!(status(&response), expected, "{response}");
        let id = header(&response, "x-request-id").unwrap_or_else(|| panic!("a request id: {response}"));
        assert!(uuid::Uuid::try_parse(id).is_ok(), "{id}");
        assert!(response.ends_with("\r\n\r\n"), "{response}");
    }
    app.end().await;
}

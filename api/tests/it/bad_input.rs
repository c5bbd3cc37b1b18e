use dibs_common::domain::campaign::Validity;
use reqwest::Method;
use serde_json::json;

use crate::app::{ADMIN_TOKEN, Answer, TestApp, claim_body, terms_body};

#[tokio::test]
async fn any_body_of_a_claim_that_is_not_one_is_refused_with_its_code() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    let bodies: [(&str, u16, &str); 19] = [
        ("[7, 1]", 400, "VALIDATION_FAILED"),
        ("", 400, "MALFORMED_JSON"),
        ("{", 400, "MALFORMED_JSON"),
        ("{}", 400, "VALIDATION_FAILED"),
        ("[]", 400, "VALIDATION_FAILED"),
        ("null", 400, "VALIDATION_FAILED"),
        ("\"text\"", 400, "VALIDATION_FAILED"),
        (r#"{"userId": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "couponId": "1"}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "couponId": 1, "more": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "userId": 2, "couponId": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 0, "couponId": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": -1, "couponId": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 1.5, "couponId": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 9007199254740992, "couponId": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 1e400, "couponId": 1}"#, 400, "MALFORMED_JSON"),
        (r#"{"userId": null, "couponId": 1}"#, 400, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "couponId": 1} x"#, 400, "MALFORMED_JSON"),
        (r#"{"userId": 1, "couponId": 9007199254740991}"#, 404, "COUPON_NOT_FOUND"),
    ];
    for (body, status, code) in bodies {
        let request = app.request(Method::POST, "/coupons/issue").header("content-type", "application/json");
        let answer = Answer::of(request.body(body)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{body}");
        assert_eq!(answer.body["errors"].is_array(), code == "VALIDATION_FAILED", "{body}");
    }
    let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
    assert_eq!(batcher.claimed(&app.environment.redis).await.expect("redis"), Some(0), "nothing was stored");
    app.end().await;
}

#[tokio::test]
async fn a_body_that_is_not_utf_8_or_too_deep_or_too_long_is_refused() {
    let app = TestApp::new().await;
    let post = |body: Vec<u8>| {
        let request = app.request(Method::POST, "/coupons/issue").header("content-type", "application/json");
        Answer::of(request.body(body))
    };
    assert_eq!(post(vec![0xff; 10]).await.code(), "MALFORMED_JSON");
    assert_eq!(post(b"[".repeat(10_000)).await.status, 400);
    let long = post(vec![b' '; 65 * 1024]).await;
    assert_eq!((long.status.as_u16(), long.code()), (413, "PAYLOAD_TOO_LARGE"));
    app.end().await;
}

#[tokio::test]
async fn a_body_must_be_declared_as_json() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "\u{e9}"] {
        let request = app.request(Method::POST, "/coupons/issue").header("content-type", content_type);
        let answer = Answer::of(request.body(claim_body(coupon, 1).to_string())).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (415, "UNSUPPORTED_MEDIA_TYPE"), "{content_type}");
    }
    let request = app.request(Method::POST, "/coupons/issue").header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(Answer::of(request.body(claim_body(coupon, 1).to_string())).await.status, 202);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn unusual_headers_do_not_matter() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    let long_id = "x".repeat(200);
    for (user, (name, value)) in
        [("prefer", "wait=lots"), ("prefer", "\u{ff}"), ("x-request-id", ""), ("x-request-id", long_id.as_str())]
            .into_iter()
            .enumerate()
    {
        let request = app.request(Method::POST, "/coupons/issue").header(name, value);
        let answer = Answer::of(request.json(&claim_body(coupon, user as u64 + 1))).await;
        assert_eq!(answer.status, 202, "{name}: {value}");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36), "an id of our own");
    }
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn unknown_routes_and_methods_and_parameters_are_refused() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    let refused = async |method: Method, path: &str| {
        let answer = Answer::of(app.request(method, path)).await;
        (answer.status.as_u16(), answer.code().to_owned())
    };
    assert_eq!(refused(Method::GET, "/nothing").await, (404, "ROUTE_NOT_FOUND".into()));
    assert_eq!(refused(Method::PUT, "/coupons/issue").await, (405, "METHOD_NOT_ALLOWED".into()));
    for path in ["/coupons/0", "/coupons/x", "/coupons/-1", "/coupons/9007199254740992", "/coupons/1%00"] {
        assert_eq!(refused(Method::GET, path).await, (400, "VALIDATION_FAILED".into()), "{path}");
    }
    assert_eq!(refused(Method::GET, "/coupons/4242").await, (404, "COUPON_NOT_FOUND".into()));
    assert_eq!(refused(Method::GET, &format!("/coupons/{coupon}/claims/9")).await, (404, "CLAIM_NOT_FOUND".into()));
    for query in ["status=NEW", "limit=0", "limit=101", "limit=x", "cursor=x", "more=1"] {
        let path = format!("/users/1/coupons?{query}");
        assert_eq!(refused(Method::GET, &path).await, (400, "VALIDATION_FAILED".into()), "{path}");
    }
    app.end().await;
}

/// Fields and messages of a refusal, one a line.
fn errors_of(answer: &Answer) -> Vec<String> {
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"), "{answer:?}");
    let errors = answer.body["errors"].as_array().expect("fields");
    errors.iter().map(|error| format!("{}: {}", error["field"], error["message"]).replace('"', "")).collect()
}

#[tokio::test]
async fn every_field_of_a_wrong_type_is_named_without_types_of_rust() {
    let app = TestApp::new().await;
    let product = app.environment.product(5_000, 3).await;
    for status in [json!({ "SELLING": null }), json!(null), json!(1), json!("selling")] {
        let terms = json!({ "name": 5, "price": "1", "status": status });
        let errors = errors_of(&app.administer("/admin/products", terms).await);
        let fields: Vec<&str> = errors.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(fields, ["stock", "name", "price", "status"], "{errors:?}");
        assert!(errors[3].starts_with("status: expected SELLING or STOPPED, got "), "{errors:?}");
    }
    let change = app.request(Method::PATCH, &format!("/admin/products/{product}")).bearer_auth(ADMIN_TOKEN);
    let answer = Answer::of(change.json(&json!({ "status": { "SELLING": null } }))).await;
    assert_eq!(errors_of(&answer), ["status: expected SELLING or STOPPED, got an object"]);
    let order = json!({ "userId": "7", "items": [{ "productId": product, "quantity": null }], "userCouponId": "{1}" });
    let expected = [
        "items[0].quantity: expected an integer from 1 to 10000, got null",
        "userCouponId: expected a UUID in lower case with hyphens, got \\{1}\\",
        "userId: expected an integer from 1 to 9007199254740991, got \\7\\",
    ];
    assert_eq!(errors_of(&app.post("/orders", order).await), expected);
    app.end().await;
}

#[tokio::test]
async fn parameters_are_named_and_have_one_spelling() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    let answer = app.get("/users/0/coupons?status=NEW&limit=0&cursor=x").await;
    let errors = errors_of(&answer);
    let fields: Vec<&str> = errors.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(fields, ["userId", "status", "cursor", "limit"], "{errors:?}");
    assert!(errors[0].contains("expected an integer from 1 to 9007199254740991, got"), "{errors:?}");
    for text in answer.body.to_string().split(['"', ' ']) {
        assert!(!["u64", "u32", "newtype", "premature", "variant"].contains(&text), "{}", answer.body);
    }
    assert_eq!(app.get(&format!("/coupons/{coupon}")).await.status, 200);
    for spelling in ["0", "+", "%20"] {
        let errors = errors_of(&app.get(&format!("/coupons/{spelling}{coupon}")).await);
        assert!(errors[0].starts_with("couponId: expected an integer"), "{errors:?}");
        let errors = errors_of(&app.get(&format!("/points?userId={}1", spelling.replace('+', "%2B"))).await);
        assert!(errors[0].starts_with("userId: expected an integer"), "{errors:?}");
    }
    let id = uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_abcd);
    assert_eq!(app.get(&format!("/orders/{id}")).await.code(), "ORDER_NOT_FOUND");
    let (braced, urn) = (format!("%7B{id}%7D"), format!("urn:uuid:{id}"));
    for spelling in [braced, urn, id.simple().to_string(), id.to_string().to_uppercase()] {
        let errors = errors_of(&app.get(&format!("/orders/{spelling}")).await);
        assert!(errors[0].starts_with("orderId: expected a UUID"), "{errors:?}");
        let body = json!({ "userId": 1, "orderId": spelling });
        let errors = errors_of(&app.post("/payments/confirm", body).await);
        assert!(errors[0].starts_with("orderId: expected a UUID"), "{errors:?}");
    }
    app.end().await;
}

#[tokio::test]
async fn names_are_visible_and_have_no_control_characters() {
    let app = TestApp::new().await;
    let product = app.environment.product(5_000, 3).await;
    for (name, message) in [
        ("a\0b", "expected no control characters, got U+0000"),
        ("a\nb", "expected no control characters, got U+000A"),
        ("a\u{202e}b", "expected no control characters, got U+202E"),
        ("\u{3164}", "expected a visible character"),
    ] {
        let campaign = terms_body(|terms| terms.name = name.into());
        let terms = json!({ "name": name, "price": 1, "stock": 1 });
        let change = app.request(Method::PATCH, &format!("/admin/products/{product}")).bearer_auth(ADMIN_TOKEN);
        for answer in [
            app.administer("/admin/coupons", campaign).await,
            app.administer("/admin/products", terms).await,
            Answer::of(change.json(&json!({ "name": name }))).await,
        ] {
            assert_eq!(errors_of(&answer), [format!("name: {message}")], "{name:?}");
        }
    }
    app.end().await;
}

#[tokio::test]
async fn texts_of_refusals_say_what_is_expected() {
    let app = TestApp::new().await;
    let largest = 9_007_199_254_740_991_i64;
    let body = terms_body(|terms| {
        terms.discount.value = largest + 1;
        terms.minimum_order_amount = largest + 1;
    });
    let expected = [
        format!("discount.value: expected 1 to {largest} won"),
        format!("minimumOrderAmount: expected 0 to {largest} won"),
    ];
    assert_eq!(errors_of(&app.administer("/admin/coupons", body).await), expected);
    app.end().await;
}

/// Such a campaign would give out coupons that are expired when they are issued, or none at all.
#[tokio::test]
async fn terms_that_contradict_each_other_or_the_clock_are_refused() {
    let app = TestApp::new().await;
    let until_before_the_close = terms_body(|terms| {
        terms.validity = Validity::Until(terms.closes_at - chrono::TimeDelta::seconds(1));
    });
    let wholly_in_the_past = terms_body(|terms| {
        terms.closes_at = dibs_common::clock::now() - chrono::TimeDelta::seconds(1);
        terms.opens_at = terms.closes_at - chrono::TimeDelta::hours(1);
    });
    for (body, field, word) in
        [(until_before_the_close, "validity.until", "closesAt"), (wholly_in_the_past, "closesAt", "future")]
    {
        let answer = app.administer("/admin/coupons", body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"));
        assert_eq!(answer.body["errors"][0]["field"], field);
        assert!(answer.body["errors"][0].to_string().contains(word), "{}", answer.body);
    }
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM coupons").await, 0);
    app.end().await;
}

#[tokio::test]
async fn every_wrong_field_of_a_campaign_is_named() {
    let app = TestApp::new().await;
    let body = terms_body(|terms| {
        terms.name = String::new();
        terms.discount.value = 0;
        terms.total_quantity = 0;
        terms.closes_at = terms.opens_at;
    });
    let answer = app.administer("/admin/coupons", body).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"));
    let errors = answer.body["errors"].as_array().expect("fields");
    let fields: Vec<&str> = errors.iter().filter_map(|error| error["field"].as_str()).collect();
    assert_eq!(fields, ["name", "discount.value", "totalQuantity", "closesAt"]);
    let mut body = terms_body(|_| ());
    body["discount"]["type"] = json!("FREE");
    assert_eq!(app.administer("/admin/coupons", body).await.body["errors"][0]["field"], "discount.type");
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM coupons").await, 0);
    app.end().await;
}

#[tokio::test]
async fn an_administrators_route_needs_the_token() {
    let app = TestApp::new().await;
    for token in ["", "wrong", &ADMIN_TOKEN[1..]] {
        let request = app.request(Method::POST, "/admin/coupons").bearer_auth(token);
        let answer = Answer::of(request.json(&terms_body(|_| ()))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "UNAUTHENTICATED"));
    }
    app.end().await;
    let environment = dibs_common::testing::TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, |settings| settings.admin_token = None).await;
    let answer = app.administer("/admin/coupons", terms_body(|_| ())).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "UNAUTHENTICATED"));
    app.end().await;
}

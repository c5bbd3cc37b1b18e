//! Every problem and every list as callers see it. `INSTA_UPDATE=always` writes what changed; a review reads the
//! difference.

use std::collections::BTreeMap;

use axum::{
    body,
    http::Uri,
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, NaiveDate};
use dibs_api::problem::{ApiError, render};
use dibs_common::{
    Error,
    clock::from_millis,
    domain::{
        FieldError,
        access::Scope,
        assignment::AssignmentStatus,
        assignment_rules::BudgetExceeded,
        claim::ClaimRecord,
        facts::{CouponRefusal, Facts},
        order::{OrderRejectReason, RejectCode},
    },
    error::{CredentialFault, Dependency, ErrorCode},
    identifiers::{AssignmentId, ChargeId, ClaimId, CommandId, OrderId, PaymentId, ProductId, RebuildId, UserId},
    testing::TestEnvironment,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{Answer, TestApp};

const ID: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

/// Of commands, beside those that other errors show.
const REJECT_CODES: [RejectCode; 9] = [
    RejectCode::ProductNotFound,
    RejectCode::ProductNotSelling,
    RejectCode::CouponNotUsable,
    RejectCode::PaymentRequired,
    RejectCode::UnpaidOrdersLimitExceeded,
    RejectCode::UnpaidUnitsLimitExceeded,
    RejectCode::PointsCapExceeded,
    RejectCode::OrderNotFound,
    RejectCode::CommandFailed,
];

/// What the rules state with these codes.
fn facts_of(code: RejectCode) -> Facts {
    let product_id = Some(ProductId::try_from(7).expect("an id"));
    let (held, requested, limit) = (Some(4), Some(2), Some(5));
    let none = Facts::default();
    match code {
        RejectCode::CouponNotUsable => Facts {
            user_coupon_id: Some(ClaimId(ID)),
            reason: Some(CouponRefusal::MinimumNotReached),
            minimum_order_amount: Some(10_000),
            total_amount: Some(9_999),
            ..none
        },
        RejectCode::UnpaidOrdersLimitExceeded => Facts { held, limit, ..none },
        RejectCode::UnpaidUnitsLimitExceeded => Facts { product_id, held, requested, limit, ..none },
        RejectCode::PointsCapExceeded => Facts { held, requested, limit, ..none },
        RejectCode::OrderNotFound => Facts { order_id: Some(OrderId(ID)), ..none },
        RejectCode::CommandFailed => Facts { command_id: Some(CommandId(ID)), ..none },
        _ => Facts { product_id, ..none },
    }
}

/// The page of a code names every field of its problem that not all problems have.
fn expect_named_on_its_page(code: &str, body: &Value) {
    let common = ["type", "title", "status", "detail", "instance", "code", "requestId"];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
    let page = std::fs::read_to_string(format!("{path}/{code}.md")).expect("a page");
    for field in body.as_object().expect("an object").keys().filter(|field| !common.contains(&field.as_str())) {
        assert!(page.contains(&format!("`{field}`")), "docs/errors/{code}.md does not name `{field}`");
    }
}

/// One error of each code, and the kinds that show facts of their own.
fn errors() -> Vec<Error> {
    let product = ProductId::try_from(7).expect("an id");
    let user = UserId::try_from(3).expect("an id");
    let coupon = 5.try_into().expect("an id");
    let at = from_millis(1_900_000_000_000);
    let claim = ClaimRecord { claim_id: ClaimId(ID), sequence: 1, accepted_at: at };
    let rejected = |code: RejectCode| {
        Error::OrderRejected(OrderRejectReason::new(code, "What was expected.").with(facts_of(code)))
    };
    let mut errors = vec![
        Error::ValidationFailed(vec![
            FieldError::new("name", "expected text"),
            FieldError::new("price", "expected won"),
        ]),
        Error::MalformedJson("EOF while parsing a value".into()),
        Error::PayloadTooLarge(65_536),
        Error::UnsupportedMediaType,
        Error::RequestTimeout(10),
        Error::Unauthenticated(CredentialFault::Unknown),
        Error::ScopeRequired(Scope::Claims),
        Error::ApiKeyNameTaken("shop".into()),
        Error::ApiKeyNotFound(6.try_into().expect("an id")),
        Error::ApiKeyLimitExceeded(1_000),
        Error::RouteNotFound,
        Error::MethodNotAllowed,
        Error::CouponNotFound(coupon),
        Error::ClaimNotFound { coupon, user },
        Error::AssignmentNotFound(AssignmentId(ID).into()),
        Error::RebuildNotFound(RebuildId(ID)),
        Error::DeadLetterNotFound(4.try_into().expect("an id")),
        Error::DeadLetterNotRedrivable(4.try_into().expect("an id")),
        Error::CouponAlreadyIssued(claim),
        Error::CampaignNotOpen { opens_at: at, now: at - chrono::TimeDelta::seconds(90) },
        Error::CampaignPaused,
        Error::CampaignClosed,
        Error::CouponExhausted,
        Error::ClaimFailed(ClaimId(ID)),
        Error::CampaignUnavailable(coupon),
        Error::StockInsufficient { product, stock: 1, change: -2 },
        Error::OrderPending(OrderId(ID)),
        Error::CommandNotFound(CommandId(ID)),
        Error::PaymentNotFound(PaymentId(ID)),
        Error::PaymentDeclined(ChargeId(ID)),
        Error::ChargeNotFound(ChargeId(ID)),
        Error::AmountBelowMinimum(10_000),
        Error::PaymentFailed {
            payment: PaymentId(ID),
            refusal: OrderRejectReason::new(RejectCode::PointsInsufficient, "The user has 1 point; 2 are to be paid.")
                .with(Facts { balance: Some(1), required: Some(2), ..Facts::default() }),
        },
        Error::IdempotencyInProgress,
        Error::IdempotencyKeyReused,
        Error::RateLimited { scope: "user", limit: 60, retry_after: 2 },
        Error::Overloaded,
        Error::unavailable(Dependency::MySql, "secret of the cause"),
        Error::internal("secret of the cause"),
    ];
    errors.extend(REJECT_CODES.map(rejected));
    errors
}

/// The errors of changes by administrators.
fn errors_of_changes() -> Vec<Error> {
    vec![
        Error::QuantityBelowClaimed { requested: 3, claimed: 4 },
        Error::AssignmentKeyReused(AssignmentId(ID).into()),
        Error::AssignmentStateConflict(AssignmentStatus::Rejected),
        Error::AssignmentBudgetExceeded(BudgetExceeded {
            requested: 3,
            assigned: 8,
            budget: 10,
            business_day: NaiveDate::from_ymd_opt(2026, 5, 1).expect("a day"),
        }),
        Error::PreconditionRequired,
        Error::PreconditionFailed,
    ]
}

/// Status, headers and body of a rendered error.
async fn shown(error: Error) -> Value {
    let response: Response =
        render(ApiError(error).into_response(), "request-1", &Uri::from_static("/coupons/issue?query=1"));
    let (head, body) = response.into_parts();
    let headers: BTreeMap<&str, &str> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    let body = body::to_bytes(body, 10_000).await.expect("a body");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    json!({ "status": head.status.as_u16(), "headers": headers, "body": body })
}

#[tokio::test]
async fn the_problem_of_every_code() {
    let mut problems = BTreeMap::new();
    for error in errors().into_iter().chain(errors_of_changes()) {
        let code = error.code().into_str();
        let problem = shown(error).await;
        assert_eq!(problem["body"]["type"], format!("/errors/{code}"));
        assert!(!problem.to_string().contains("secret"), "a cause is for the log: {problem}");
        expect_named_on_its_page(code, &problem["body"]);
        assert!(problems.insert(code, problem).is_none(), "{code} twice");
    }
    let missing: Vec<_> = ErrorCode::ALL.iter().filter(|code| !problems.contains_key(code.into_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // The examples of the OpenAPI document are from it, and its `Retry-After`.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/problems.json");
    let sent = format!("{:#}\n", json!(problems));
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, &sent).expect("written");
    }
    let committed = std::fs::read_to_string(path).expect("api/problems.json");
    assert!(committed == sent, "api/problems.json is out of date: INSTA_UPDATE=always writes it");
}

/// Replaces what differs from run to run: ids that Dibs generates, and times.
fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::String(text) => {
            if DateTime::parse_from_rfc3339(text).is_ok() {
                *text = "[time]".into();
            }
            let places: Vec<usize> = text.char_indices().map(|(place, _)| place).rev().collect();
            for place in places {
                if text.get(place..place + 36).is_some_and(|part| Uuid::try_parse(part).is_ok()) {
                    text.replace_range(place..place + 36, "[uuid]");
                }
            }
        }
        _ => {}
    }
}

fn redacted(answer: Answer) -> Value {
    let mut body = answer.body;
    redact(&mut body);
    let headers = ["retry-after", "www-authenticate", "location"];
    let headers: BTreeMap<&str, String> = headers
        .into_iter()
        .filter_map(|name| Some((name, Value::from(answer.headers.get(name)?.to_str().expect("text")))))
        .map(|(name, mut value)| {
            redact(&mut value);
            (name, value.as_str().unwrap_or_default().to_owned())
        })
        .collect();
    json!({ "status": answer.status.as_u16(), "headers": headers, "body": body })
}

/// What a caller meets over HTTP, from the shape of the request to the state of the shop.
#[tokio::test]
async fn refused_calls() {
    let app = TestApp::with_worker().await;
    let coupon = app.environment.campaign(1).await.id;
    let product = app.environment.product(7_000, 1).await;
    app.environment.points(1, 10_000).await;
    let stopped = app.environment.product(7_000, 1).await;
    app.environment.execute(&format!("UPDATE products SET status = 'STOPPED' WHERE product_id = {stopped}")).await;
    let order = |product: ProductId, quantity: u32| json!({ "userId": 1, "items": [{ "productId": product, "quantity": quantity }] });
    let mut calls = Vec::new();
    for path in
        ["/nothing", "/coupons/99", "/coupons/1/claims/1", "/products/99", "/products/99/rank", "/users/x/coupons"]
    {
        calls.push((format!("GET {path}"), app.get(path).await));
    }
    for path in ["/orders", "/payments", "/points/charges"] {
        let path = format!("{path}/{ID}");
        calls.push((format!("GET {path}"), app.get(&path).await));
    }
    for query in ["", "?userId=1&limit=0", "?userId=1&cursor=x", "?userId=1&page=1"] {
        let path = format!("/orders{query}");
        calls.push((format!("GET {path}"), app.get(&path).await));
    }
    calls.push(("GET /products/best-sellers".into(), app.get("/products/best-sellers?days=2&pageSize=0").await));
    let post = |path: &str| app.request(Method::POST, path);
    calls.push(("POST without a content type".into(), Answer::of(post("/coupons/issue").body("{}")).await));
    let malformed = post("/coupons/issue").header("content-type", "application/json").body("{\"userId\": ");
    calls.push(("POST half a body".into(), Answer::of(malformed).await));
    let long = post("/coupons/issue").header("content-type", "application/json").body(vec![b' '; 65 * 1024]);
    calls.push(("POST a long body".into(), Answer::of(long).await));
    calls.push(("DELETE".into(), Answer::of(app.request(Method::DELETE, "/products")).await));
    calls.push(("no token".into(), app.post("/admin/products", json!({})).await));
    calls.push(("an unknown field".into(), app.post("/coupons/issue", json!({ "userId": 1, "colour": 1 })).await));
    calls.push(("a small charge".into(), app.post("/points", json!({ "userId": 1, "amount": 1 })).await));
    calls.push(("a large charge".into(), app.post("/points", json!({ "userId": 1, "amount": 10_000_000 })).await));
    assert_eq!(app.claim_and_wait(coupon, 1).await.status, 200);
    calls.push(("a second claim".into(), app.claim(coupon, 1).await));
    calls.push(("a claim too many".into(), app.claim(coupon, 2).await));
    calls.push(("more than in stock".into(), app.post("/orders", order(product, 2)).await));
    calls.push(("not for sale".into(), app.post("/orders", order(stopped, 1)).await));
    calls.push(("no such product".into(), app.post("/orders", order(99.try_into().expect("an id"), 1)).await));
    let placed = app.post("/orders", json!({ "userId": 2, "items": [{ "productId": product, "quantity": 1 }] })).await;
    let id = placed.body["orderId"].as_str().expect("an id").to_owned();
    calls.push(("too few points".into(), app.post("/payments/confirm", json!({ "userId": 2, "orderId": id })).await));
    calls.push(("another user's".into(), app.post(&format!("/orders/{id}/cancel"), json!({ "userId": 1 })).await));
    calls.push(("not paid".into(), app.post(&format!("/orders/{id}/confirm"), json!({ "userId": 2 })).await));
    let answers: BTreeMap<String, Value> = calls.into_iter().map(|(name, answer)| (name, redacted(answer))).collect();
    insta::assert_json_snapshot!(answers);
    app.end().await;
}

/// The body of every list: its items, and the cursor of a page that has a next one.
#[tokio::test]
async fn lists() {
    let app = TestApp::at(TestEnvironment::new().await).await;
    let mut app = app;
    app.start_worker(crate::app::RULES);
    let product = app.environment.product(7_000, 10).await;
    app.environment.product(8_000, 10).await;
    let coupon = app.environment.campaign(5).await.id;
    assert_eq!(app.claim_and_wait(coupon, 1).await.status, 200);
    assert_eq!(app.post("/points", json!({ "userId": 1, "amount": 20_000 })).await.status, 200);
    for pay in [true, false] {
        let body = json!({ "userId": 1, "items": [{ "productId": product, "quantity": 1 }], "pay": pay });
        assert_eq!(app.post("/orders", body).await.status, 201);
    }
    let mut lists = BTreeMap::new();
    let paths = [
        "/products?limit=1",
        "/users/1/coupons",
        "/points/history?userId=1",
        "/orders?userId=1&limit=1",
        "/orders?userId=2",
    ];
    for path in paths {
        lists.insert(path, redacted(app.get(path).await));
    }
    let letters = app.request(Method::GET, "/admin/dead-letters").bearer_auth(crate::app::ADMIN_TOKEN);
    lists.insert("/admin/dead-letters", redacted(Answer::of(letters).await));
    insta::assert_json_snapshot!(lists);
    app.end().await;
}

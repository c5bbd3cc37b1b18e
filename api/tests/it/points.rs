use std::time::{Duration, Instant};

use dibs_common::{
    clock, db,
    domain::{charge::NewCharge, points::PointRules},
    error::Error,
    identifiers::ChargeId,
    testing::{TestEnvironment, eventually},
};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, TestApp};

/// The default of `POINTS_HOLDING_CAP`, in won.
pub const CAP: i64 = 10_000_000;
const RULES: PointRules = PointRules { charge_minimum: 10_000, holding_cap: CAP };

pub fn charge_body(user: u64, amount: i64) -> Value {
    json!({ "userId": user, "amount": amount })
}

pub async fn balance(app: &TestApp, user: u64) -> Value {
    let answer = app.get(&format!("/points?userId={user}")).await;
    assert_eq!((answer.status.as_u16(), &answer.body["userId"]), (200, &json!(user)));
    answer.body["balance"].clone()
}

/// Ends a test whose points must add up.
pub async fn end_with_exact_points(app: TestApp) {
    assert_points_add_up(&app.environment).await;
    app.end().await;
}

/// I6, as the tables say it: balances are the sums of the ledger and within the cap, what is on its way is the sum of
/// the pending charges, every approved charge has its row and its event.
pub async fn assert_points_add_up(environment: &TestEnvironment) {
    let sum = |of: &str| format!("(SELECT COALESCE(SUM(amount), 0) FROM {of} a WHERE a.user_id = p.user_id");
    let wrong = [
        format!("p.balance <> {})", sum("point_histories")),
        format!("p.pending <> {} AND a.status = 'PENDING')", sum("charges")),
        format!("p.balance < 0 OR p.balance + p.pending > {CAP}"),
        "p.balance <> COALESCE((SELECT balance_after FROM point_histories h WHERE h.user_id = p.user_id \
         ORDER BY point_history_id DESC LIMIT 1), 0)"
            .into(),
    ];
    for wrong in wrong {
        let count = format!("SELECT COUNT(*) FROM point_accounts p WHERE {wrong}");
        assert_eq!(environment.count(&count).await, 0, "{wrong}");
    }
    let approved = environment.count("SELECT COUNT(*) FROM charges WHERE status = 'APPROVED'").await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM point_histories WHERE type = 'CHARGE'").await, approved);
    let events = "SELECT COUNT(*) FROM outbox_events WHERE type = 'points.charged' AND aggregate_type = 'POINTS'";
    assert_eq!(environment.count(events).await, approved);
}

/// `002` section 1-1, and the charge of `000`, `003` and `004`, section 1 each.
#[tokio::test]
async fn seed_002_1_1_points_are_charged() {
    let app = TestApp::new().await;
    let first = app.post("/points", charge_body(1, 10_000)).await;
    assert_eq!(first.status, 200);
    let charge = first.body["chargeId"].as_str().expect("an id").to_owned();
    assert_eq!(first.body, json!({ "userId": 1, "balance": 10_000, "chargeId": charge, "status": "APPROVED" }));
    let body = json!({ "userId": 1, "amount": 15_000, "paymentMethod": "CARD" });
    assert_eq!(app.post("/points", body).await.body["balance"], 25_000);
    let state = app.get(&format!("/points/charges/{charge}")).await;
    assert_eq!((state.status.as_u16(), &state.body["status"]), (200, &json!("APPROVED")));
    assert_eq!((&state.body["amount"], &state.body["userId"]), (&json!(10_000), &json!(1)));
    assert!(state.body["decidedAt"].is_string() && state.body.get("paymentMethod").is_none());
    end_with_exact_points(app).await;
}

#[tokio::test]
async fn seed_002_1_1_a_charge_below_the_minimum_is_refused() {
    let app = TestApp::new().await;
    for amount in [9_999, 1] {
        let refused = app.post("/points", charge_body(1, amount)).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "AMOUNT_BELOW_MINIMUM"), "{amount}");
        assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.contains("10000")));
    }
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM point_accounts").await, 0, "nothing was stored");
    app.end().await;
}

#[tokio::test]
async fn seed_002_1_1_a_charge_beyond_the_cap_is_refused() {
    let app = TestApp::new().await;
    assert_eq!(app.post("/points", charge_body(1, CAP - 10_000)).await.status, 200);
    let refused = app.post("/points", charge_body(1, 10_001)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "POINTS_CAP_EXCEEDED"));
    assert_eq!(balance(&app, 1).await, CAP - 10_000, "the refusal changed nothing");
    assert_eq!(app.post("/points", charge_body(1, 10_000)).await.body["balance"], CAP);
    assert_eq!(app.post("/points", charge_body(2, CAP + 1)).await.code(), "POINTS_CAP_EXCEEDED");
    end_with_exact_points(app).await;
}

/// `003` section 1: a charge of 0 or less fails.
#[tokio::test]
async fn seed_003_1_a_charge_of_nothing_or_less_is_refused() {
    let app = TestApp::new().await;
    for amount in [0, -1, -10_000, i64::MIN] {
        let refused = app.post("/points", charge_body(1, amount)).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "AMOUNT_BELOW_MINIMUM"), "{amount}");
    }
    app.end().await;
}

#[tokio::test]
async fn seed_004_1_a_charge_is_answered_with_the_balance_after_it() {
    let app = TestApp::new().await;
    app.post("/points", charge_body(1, 30_000)).await;
    let charged = app.post("/points", charge_body(1, 10_000)).await;
    assert_eq!((charged.status.as_u16(), &charged.body["balance"]), (200, &json!(40_000)));
    assert_eq!(charged.body["userId"], 1);
    app.end().await;
}

/// `004` section 2, and `002` section 1-2.
#[tokio::test]
async fn seed_004_2_a_user_never_seen_has_no_points() {
    let app = TestApp::new().await;
    assert_eq!(balance(&app, 1).await, 0);
    app.post("/points", charge_body(1, 20_000)).await;
    assert_eq!(balance(&app, 1).await, 20_000);
    assert_eq!(balance(&app, 2).await, 0);
    app.end().await;
}

/// `000` section 1: each charge leaves a row of the ledger.
#[tokio::test]
async fn seed_000_1_points_history_is_listed_newest_first_page_by_page() {
    let app = TestApp::new().await;
    let mut charges = Vec::new();
    for amount in [10_000, 20_000, 30_000] {
        charges.push(app.post("/points", charge_body(1, amount)).await.body["chargeId"].clone());
    }
    app.post("/points", charge_body(2, 50_000)).await;
    let all = app.get("/points/history?userId=1").await;
    let rows: Vec<Value> = all.body["items"].as_array().expect("items").clone();
    let shown: Vec<Value> =
        rows.iter().map(|row| json!([row["amount"], row["balanceAfter"], row["chargeId"]])).collect();
    let expected =
        [json!([30_000, 60_000, charges[2]]), json!([20_000, 30_000, charges[1]]), json!([10_000, 10_000, charges[0]])];
    assert_eq!(shown, expected);
    assert_eq!((&rows[0]["type"], rows[0].get("paymentId"), rows[0].get("orderId")), (&json!("CHARGE"), None, None));
    assert!(rows[0]["createdAt"].is_string() && all.body["nextCursor"].is_null());
    let first = app.get("/points/history?userId=1&limit=2").await.body;
    let second = app.get(&format!("/points/history?userId=1&limit=2&cursor={}", first["nextCursor"])).await.body;
    let pages = [first["items"].clone(), second["items"].clone()];
    assert_eq!(pages.iter().flat_map(|page| page.as_array().cloned().unwrap_or_default()).collect::<Vec<_>>(), rows);
    assert!(second["nextCursor"].is_null());
    assert_eq!(app.get("/points/history?userId=9").await.body, json!({ "items": [], "nextCursor": null }));
    app.end().await;
}

#[tokio::test]
async fn points_of_any_other_shape_are_refused_with_their_code() {
    let app = TestApp::new().await;
    let long_method = format!(r#"{{"userId": 1, "amount": 10000, "paymentMethod": "{}"}}"#, "카".repeat(41));
    let bodies = [
        ("{}", "VALIDATION_FAILED"),
        (r#"{"userId": 1}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 0, "amount": 10000}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": "10000"}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": 10000.5}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": null}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": 9007199254740992}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": 9223372036854775807}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": 9223372036854775808}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": 1e400}"#, "MALFORMED_JSON"),
        (r#"{"userId": 1, "amount": 10000, "paymentMethod": ""}"#, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": 10000, "paymentMethod": 1}"#, "VALIDATION_FAILED"),
        (&long_method, "VALIDATION_FAILED"),
        (r#"{"userId": 1, "amount": 10000, "balance": 1}"#, "VALIDATION_FAILED"),
        (r"[1, 10000]", "VALIDATION_FAILED"),
    ];
    for (body, code) in bodies {
        let request = app.request(Method::POST, "/points").header("content-type", "application/json");
        let refused = Answer::of(request.body(body.to_owned())).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, code), "{body}");
    }
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM charges").await, 0);
    let queries = ["", "?userId=0", "?userId=x", "?userId=1&more=1", "?userId=1&userId=2"];
    for path in queries.iter().flat_map(|query| [format!("/points{query}"), format!("/points/history{query}")]) {
        assert_eq!(app.get(&path).await.code(), "VALIDATION_FAILED", "{path}");
    }
    for query in ["limit=0", "limit=101", "cursor=x", "cursor=-1"] {
        let refused = app.get(&format!("/points/history?userId=1&{query}")).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED", "{query}");
    }
    assert_eq!(app.get("/points/charges/x").await.code(), "VALIDATION_FAILED");
    let unknown = app.get(&format!("/points/charges/{}", ChargeId::generate())).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "CHARGE_NOT_FOUND"));
    app.end().await;
}

#[tokio::test]
async fn points_of_the_longest_payment_method_in_any_script_are_charged() {
    let app = TestApp::new().await;
    let method = format!("{}'\\\u{0}🎟", "카".repeat(36));
    let body = json!({ "userId": 1, "amount": 10_000, "paymentMethod": method });
    let charged = app.post("/points", body).await;
    assert_eq!(charged.status, 200);
    let state = app.get(charged.header("location").expect("a location")).await;
    assert_eq!(state.body["paymentMethod"], method);
    app.end().await;
}

/// I6: charges of one user at once, also at the cap, leave the balance within it and equal to its ledger.
#[tokio::test]
async fn i6_balance_is_the_sum_of_the_ledger_under_concurrent_charges() {
    let app = TestApp::new().await;
    let asked = (0..60).map(|number| app.post("/points", charge_body(1 + number % 3, 700_000)));
    let answers = join_all(asked).await;
    let charged = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 422 && answer.code() == "POINTS_CAP_EXCEEDED");
    // Fourteen fit below the cap of each of the three users.
    assert_eq!((charged, refused.count()), (42, 18), "{answers:?}");
    for user in 1..=3 {
        assert_eq!(balance(&app, user).await, 9_800_000);
    }
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM charges").await, 42, "what was refused left no charge");
    end_with_exact_points(app).await;
}

/// I6 and I12: the same operation, from any number of callers at once, is one charge with one answer.
#[tokio::test]
async fn i6_identical_charges_at_once_charge_once_and_answer_the_same() {
    let environment = TestEnvironment::new().await;
    let wanted = NewCharge {
        id: ChargeId::generate(),
        user: 1.try_into().expect("an id"),
        amount: 10_000,
        payment_method: Some("CARD".into()),
    };
    let now = clock::now();
    let charge = || db::charges::begin_approved(&environment.database, &wanted, RULES, now);
    let answers = join_all((0..50).map(|_| charge())).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("charged")).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!((answers[0].balance, environment.count("SELECT COUNT(*) FROM charges").await), (10_000, 1));
    let another = NewCharge { id: ChargeId::generate(), ..wanted.clone() };
    db::charges::begin_approved(&environment.database, &another, RULES, now).await.expect("charged");
    assert_eq!(charge().await.expect("charged"), answers[0], "a late repeat gets the answer of the first");
    let changed = NewCharge { amount: 20_000, ..wanted.clone() };
    let refused = db::charges::begin_approved(&environment.database, &changed, RULES, now).await;
    assert!(matches!(refused, Err(Error::IdempotencyKeyReused)), "{refused:?}");
    let of_another = NewCharge { user: 2.try_into().expect("an id"), ..wanted };
    let refused = db::charges::begin_approved(&environment.database, &of_another, RULES, now).await;
    assert!(matches!(refused, Err(Error::IdempotencyKeyReused)), "{refused:?}");
    assert_points_add_up(&environment).await;
    environment.end().await;
}

/// I6: the tables themselves refuse what would break it.
#[tokio::test]
async fn i6_the_database_itself_refuses_points_below_zero_and_a_second_credit() {
    let app = TestApp::new().await;
    app.post("/points", charge_body(1, 10_000)).await;
    let refused = [
        "UPDATE point_accounts SET balance = -1",
        "UPDATE point_accounts SET pending = -1",
        "UPDATE charges SET status = 'LOST'",
        "INSERT INTO point_histories (user_id, type, amount, balance_after, reference_id, created_at) \
         SELECT user_id, type, amount, balance_after, reference_id, created_at FROM point_histories",
    ];
    for sql in refused {
        let done = sqlx::query(sql).execute(&app.environment.database.pool()).await;
        assert!(done.is_err(), "{sql}");
    }
    end_with_exact_points(app).await;
}

#[tokio::test]
async fn points_without_the_database_are_refused_within_a_second_and_charged_after_its_return() {
    let (app, database, _redis) = TestApp::behind_proxies().await;
    assert_eq!(app.post("/points", charge_body(1, 10_000)).await.status, 200);
    database.shut();
    let began = Instant::now();
    for refused in [app.post("/points", charge_body(1, 10_000)).await, app.get("/points?userId=1").await] {
        assert_eq!((refused.status.as_u16(), &refused.body["dependency"]), (503, &json!("mysql")));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    database.open();
    eventually("points are charged again", Duration::from_secs(2), async || {
        app.post("/points", charge_body(1, 10_000)).await.status == 200
    })
    .await;
    end_with_exact_points(app).await;
}

/// A call of an administrator that adjusts points.
async fn adjust(app: &TestApp, user: u64, amount: i64, key: &str) -> Answer {
    let body = json!({ "userId": user, "amount": amount, "reason": " goodwill " });
    let request = app.request(Method::POST, "/admin/points").bearer_auth(ADMIN_TOKEN).header("idempotency-key", key);
    Answer::of(request.json(&body)).await
}

#[tokio::test]
async fn i6_an_administrator_grants_points_and_takes_them_back() {
    let app = TestApp::new().await;
    let granted = adjust(&app, 7, 5_000, "a").await;
    assert_eq!((granted.status.as_u16(), &granted.body["balance"]), (200, &json!(5_000)));
    assert_eq!(adjust(&app, 7, 5_000, "a").await.body, granted.body, "a repeat has no second effect");
    assert_eq!(adjust(&app, 7, -2_000, "b").await.body["balance"], 3_000);
    let refused = adjust(&app, 7, -3_001, "c").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "POINTS_INSUFFICIENT"));
    assert_eq!((&refused.body["balance"], &refused.body["required"]), (&json!(3_000), &json!(3_001)));
    assert_eq!(adjust(&app, 7, 9_997_001, "d").await.code(), "POINTS_CAP_EXCEEDED");
    let history = app.get("/points/history?userId=7").await.body["items"].clone();
    let rows: Vec<(&Value, &Value)> = [0, 1].map(|row| (&history[row]["type"], &history[row]["amount"])).to_vec();
    assert_eq!(rows, [(&json!("DEDUCTION"), &json!(-2_000)), (&json!("GRANT"), &json!(5_000))]);
    assert_eq!(history[1]["adjustmentId"], granted.body["adjustmentId"]);
    let actions = app.request(Method::GET, "/admin/actions?targetId=7").bearer_auth(ADMIN_TOKEN);
    let actions = Answer::of(actions).await.body["items"].clone();
    assert_eq!((&actions[0]["action"], &actions[1]["action"]), (&json!("points.deduct"), &json!("points.grant")));
    assert_eq!((&actions[0]["reason"], &actions[0]["before"]), (&json!("goodwill"), &json!({ "balance": 5_000 })));
    app.environment.expect_consistent_rows().await;
    app.end().await;
}

#[tokio::test]
async fn wrong_adjustments_are_refused() {
    let app = TestApp::new().await;
    for (body, field) in [
        (json!({ "userId": 7, "amount": 0, "reason": "r" }), "amount"),
        (json!({ "userId": 7, "amount": 5, "reason": "  " }), "reason"),
        (json!({ "userId": 7, "amount": 5 }), "reason"),
        (json!({ "userId": 0, "amount": 5, "reason": "r" }), "userId"),
    ] {
        let refused = app.administer("/admin/points", body).await;
        assert_eq!((refused.status.as_u16(), refused.body["errors"][0]["field"].as_str()), (400, Some(field)));
    }
    let body = json!({ "userId": 7, "amount": 5, "reason": "r" });
    assert_eq!(app.post("/admin/points", body).await.code(), "UNAUTHENTICATED");
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM point_accounts").await, 0);
    app.end().await;
}

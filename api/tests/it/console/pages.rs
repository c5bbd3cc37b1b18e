use dibs_common::{
    clock, db,
    domain::{access::Scope, campaign::CampaignTerms, dead_letter::NewDeadLetter},
    live,
    testing::open_terms,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::Visitor;
use crate::{
    access::api_key,
    app::{RULES, TestApp},
};

pub fn letter(source: &str, key: &str) -> NewDeadLetter {
    NewDeadLetter {
        source: source.into(),
        key: key.into(),
        kind: "order.paid".into(),
        aggregate_id: Some("7".into()),
        payload: r#"{"orderId":"7"}"#.into(),
        redrivable: true,
        reason: "it answered 422: no".into(),
        attempts: 3,
    }
}

pub async fn insert(app: &TestApp, letter: NewDeadLetter) {
    let mut connection = app.environment.database.pool().acquire().await.expect("a connection");
    db::dead_letters::insert(&mut connection, &letter, clock::now()).await.expect("inserted");
}

#[tokio::test]
async fn a_campaign_is_created_by_the_form_and_a_wrong_form_comes_back_with_what_is_wrong() {
    let app = TestApp::new().await;
    let mut visitor = Visitor::administrator(&app).await;
    let form = "/console/campaigns/new";
    let fields = [
        ("name", "Coffee"),
        ("discount.type", "PERCENT"),
        ("discount.value", "10"),
        ("discount.maxAmount", "3,000"),
        ("minimumOrderAmount", "20000"),
        ("totalQuantity", "10,000"),
        ("perUserLimit", "1"),
        ("opensAt", "2031-05-01T12:00"),
        ("closesAt", "2031-05-02T12:00"),
        ("validity", "days"),
        ("validity.days", "30"),
        ("reason", "spring"),
    ];
    let wrong = fields.map(|(name, value)| if name == "totalQuantity" { (name, "many") } else { (name, value) });
    let page = visitor.submit(form, "/console/campaigns", &wrong).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    page.expect("VALIDATION_FAILED").expect("id=\"wrong-totalQuantity\"").expect("value=\"Coffee\"");
    let preview = visitor.submit(form, "/console/campaigns/preview", &fields).await;
    preview
        .expect("10 % off, up to 3,000 won")
        .expect("orders of 20,000 won or more")
        .expect("30,000 won costs 27,000 won");
    let page = visitor.get(form).await;
    let (csrf, operation) = (page.hidden("csrf"), page.hidden("operation"));
    let mut all = vec![("csrf", csrf.as_str()), ("operation", operation.as_str())];
    all.extend(fields);
    let created = visitor.send("/console/campaigns", &all).await;
    let again = visitor.send("/console/campaigns", &all).await;
    assert_eq!(created.location(), again.location(), "a form that is sent twice creates one campaign");
    let page = visitor.get(created.location()).await;
    page.expect("The campaign is created.").expect("2031-05-01 12:00:00").expect("Asia/Seoul (UTC+9)").expect("spring");
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM coupons WHERE opens_at = '2031-05-01 03:00:00'").await, 1);
    visitor.get("/console/campaigns?status=SCHEDULED&name=Cof").await.expect("Coffee");
    app.end().await;
}

#[tokio::test]
async fn a_quantity_is_changed_after_a_dry_run_and_not_when_another_change_came_between() {
    let app = TestApp::new().await;
    let coupon = app.environment.campaign(10).await.id;
    let mut visitor = Visitor::administrator(&app).await;
    let campaign = format!("/console/campaigns/{coupon}");
    let path = format!("{campaign}/quantity");
    let wrong = visitor.submit(&campaign, &path, &[("quantity", "ten")]).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let dry = visitor.submit(&campaign, &path, &[("quantity", "25"), ("reason", "more")]).await;
    dry.expect("This would change").expect("Change to 25");
    let total = "SELECT total_quantity FROM coupons";
    assert_eq!(app.environment.count(total).await, 10, "nothing is changed yet");
    let (csrf, operation, revision) = (dry.hidden("csrf"), dry.hidden("operation"), dry.hidden("revision"));
    let confirm = [
        ("csrf", csrf.as_str()),
        ("operation", &operation),
        ("quantity", "25"),
        ("revision", &revision),
        ("reason", "more"),
    ];
    visitor.submit(&campaign, &format!("{campaign}/pause"), &[]).await;
    let late = visitor.send(&path, &confirm).await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    late.expect("PRECONDITION_FAILED");
    let dry = visitor.submit(&campaign, &path, &[("quantity", "25")]).await;
    let revision = dry.hidden("revision");
    let confirmed = visitor.submit(&campaign, &path, &[("quantity", "25"), ("revision", &revision)]).await;
    assert!(confirmed.location().ends_with("done=changed"));
    assert_eq!(app.environment.count(total).await, 25);
    visitor.get(&campaign).await.expect("Campaign paused").expect("<code>totalQuantity</code> 10 → 25");
    let unchanged = visitor.submit(&campaign, &path, &[("quantity", "25")]).await;
    assert!(unchanged.location().ends_with("done=unchanged"));
    for (call, done) in [("resume", "resumed"), ("rebuild", "rebuilding"), ("close", "closed")] {
        let page = visitor.submit(&campaign, &format!("{campaign}/{call}"), &[]).await;
        assert!(page.location().contains(&format!("done={done}")), "{page:?}");
    }
    let page = visitor.submit(&campaign, &format!("{campaign}/resume"), &[]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.expect("CAMPAIGN_CLOSED");
    app.end().await;
}

#[tokio::test]
async fn an_audit_names_what_differs_and_a_rebuild_is_followed_to_its_end() {
    let mut app = TestApp::new().await;
    let campaign = app.environment.campaign(10).await;
    for user in 1..=3 {
        assert_eq!(app.claim(campaign.id, user).await.status, 202);
    }
    app.work().await;
    app.environment.execute("DELETE FROM user_coupons WHERE user_id = 2").await;
    let mut visitor = Visitor::administrator(&app).await;
    let page = format!("/console/campaigns/{}", campaign.id);
    let audit = visitor.get(&format!("{page}/audit")).await;
    audit.expect("coupon missing in MySQL").expect(&format!("/console/users/2?couponId={}", campaign.id));
    app.start_worker(RULES);
    let rebuilt = visitor.submit(&page, &format!("{page}/rebuild"), &[("reason", "drift")]).await;
    let followed = rebuilt.location().split("rebuild=").last().expect("an id").to_owned();
    visitor.eventually_shows(&format!("{page}/rebuilds/{followed}"), "The campaign is rebuilt").await;
    visitor.eventually_shows(&page, "The drift check found no difference").await;
    app.environment.execute("UPDATE coupons SET issued_quantity = 2").await;
    visitor.get(&page).await.expect("Latest claims").expect("<td class=\"number\">3</td>");
    app.end().await;
}

#[tokio::test]
async fn dead_letters_are_grouped_redriven_and_dropped_one_or_all_of_a_source() {
    let app = TestApp::new().await;
    for key in 1..=3 {
        insert(&app, letter("data-platform", &key.to_string())).await;
    }
    insert(&app, NewDeadLetter { reason: "it is a teapot".into(), ..letter("notifications", "4") }).await;
    insert(&app, NewDeadLetter { redrivable: false, ..letter("a.topic", "5") }).await;
    let mut visitor = Visitor::administrator(&app).await;
    let list = "/console/dead-letters";
    let page = visitor.get(list).await;
    page.expect("it is a teapot").expect("All of data-platform (3)").expect("All of notifications (1)");
    let one = visitor.get("/console/dead-letters/4").await;
    one.expect("Dead letter 4").expect("&#34;orderId&#34;: &#34;7&#34;").expect("letters/4/redrive");
    let redriven = visitor.submit(&format!("{list}/4"), &format!("{list}/4/redrive"), &[("reason", "fixed")]).await;
    assert_eq!(redriven.location(), "/console/dead-letters/4?done=redriven");
    let page = visitor.get(redriven.location()).await;
    page.expect("redrive requested").expect("A redrive is requested");
    let refused = visitor.submit(&format!("{list}/4"), &format!("{list}/4/drop"), &[]).await;
    refused.expect("DEAD_LETTER_NOT_REDRIVABLE");
    assert!(!visitor.get(&format!("{list}/5")).await.html.contains("/redrive"), "it cannot be redriven");
    let all = visitor.submit(list, &format!("{list}/redrive"), &[("source", "data-platform")]).await;
    assert!(all.location().contains("watch=data-platform"));
    let progress = format!("{list}/progress?source=data-platform&round=9&dead=0");
    let shown = visitor.eventually_shows(&progress, "redrive requested</dt><dd>3</dd>").await;
    shown.expect("hx-trigger=\"load delay:1s\"");
    visitor.submit(list, &format!("{list}/drop"), &[("source", "a.topic")]).await;
    visitor.eventually_shows(&format!("{list}/5"), "It was dropped").await;
    assert_eq!(visitor.get(&format!("{list}/99")).await.status, StatusCode::NOT_FOUND);
    app.environment.execute("DELETE FROM dead_letters").await;
    visitor.get(list).await.expect("No dead letter waits");
    app.end().await;
}

#[tokio::test]
async fn a_users_page_says_why_the_user_has_no_coupon() {
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let terms = CampaignTerms { name: "Noon coffee".into(), total_quantity: 1, ..open_terms() };
    let coupon = app.environment.campaign_of(terms).await.id;
    assert_eq!(app.claim_and_wait(coupon, 1).await.status, 200);
    for _ in 0..3 {
        assert_eq!(app.claim(coupon, 2).await.code(), "COUPON_EXHAUSTED");
    }
    let mut visitor = Visitor::administrator(&app).await;
    assert_eq!(visitor.get("/console/users?user=2").await.location(), "/console/users/2");
    visitor.get("/console/users?user=two").await.expect("A user id is a positive whole number.");
    let page = visitor.eventually_shows("/console/users/2", "did not get it: all coupons were gone").await;
    page.expect("Noon coffee").expect("Claim refused");
    visitor.eventually_shows("/console/users/2", "3 attempts").await;
    visitor.get("/console/users/1").await.expect("got the coupon.").expect("no. 1").expect("Coupon issued");
    visitor.get("/console/users/3").await.expect("No claim of this user is known.");
    let page = visitor.get(&format!("/console/users/2?couponId={coupon}")).await;
    page.expect("all coupons were gone");
    app.end().await;
}

#[tokio::test]
async fn orders_are_found_by_id_and_user_with_payments_and_stock() {
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    app.environment.points(7, 100_000).await;
    let product = app.environment.product(12_000, 50).await;
    let order = json!({ "userId": 7, "items": [{ "productId": product, "quantity": 2 }], "pay": true });
    let placed = app.post("/orders", order).await;
    let id = placed.body["orderId"].as_str().expect("an id").to_owned();
    let mut visitor = Visitor::administrator(&app).await;
    assert_eq!(visitor.get(&format!("/console/orders?find={id}")).await.location(), format!("/console/orders/{id}"));
    let page = visitor.get("/console/orders?find=7").await;
    page.expect(&id).expect("24,000 won").expect("paid");
    let page = visitor.get(&format!("/console/orders/{id}")).await;
    page.expect("order.paid").expect("done").expect("<td class=\"number\">48</td>").expect("/console/users/7");
    let shown = visitor.eventually_shows("/console/ranking?days=1", "/console/products/").await;
    shown.expect("Guji").expect("<td class=\"number\">2</td>");
    visitor
        .get(&format!("/console/products/{product}"))
        .await
        .expect("Units sold")
        .expect("<td class=\"number\">2</td>");
    visitor.get("/console/orders?find=nonsense").await.expect("expected the id of an order, or of a user");
    let unknown = "/console/orders/01890000-0000-7000-8000-000000000000";
    assert_eq!(visitor.get(unknown).await.status, StatusCode::NOT_FOUND);
    assert_eq!(visitor.get("/console/orders/x").await.status, StatusCode::BAD_REQUEST);
    app.end().await;
}

#[tokio::test]
async fn a_key_is_shown_once_and_revoked_and_each_step_is_in_the_list_of_actions() {
    let app = TestApp::new().await;
    let mut visitor = Visitor::administrator(&app).await;
    let keys = "/console/keys";
    let wrong = visitor.submit(keys, keys, &[("name", "a b")]).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    wrong.expect("expected at least one scope").expect("value=\"a b\"");
    let fields = [("name", "shop-1"), ("scopes", "claims"), ("scopes", "read"), ("expiresAt", "2031-05-01T12:00")];
    let created = visitor.submit(keys, keys, &fields).await;
    created.expect("Key shop-1 is created").expect("value=\"dibs_").expect("2031-05-01 12:00:00");
    assert_eq!(created.header("cache-control"), "no-store");
    let page = visitor.get(keys).await;
    assert!(!page.html.contains("value=\"dibs_"), "the secret is shown once");
    let revoked = visitor.submit(keys, "/console/keys/1/revoke", &[("reason", "lost")]).await;
    visitor.get(revoked.location()).await.expect("The key is revoked.");
    let actions = visitor.get("/console/actions?actor=ADMIN_TOKEN").await;
    actions.expect("API key created").expect("API key revoked").expect("lost");
    visitor.get("/console/actions?actor=another-person").await.expect("Nothing matches.");
    app.end().await;
}

#[tokio::test]
async fn a_test_message_is_requested_once_and_its_result_is_shown() {
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let pool = app.environment.database.pool();
    db::outbox::register_sink(&pool, "data-platform", clock::now()).await.expect("registered");
    drop(pool);
    let mut visitor = Visitor::administrator(&app).await;
    let path = "/console/delivery";
    visitor.eventually_shows(path, "Data platform").await;
    let sent = visitor.submit(path, "/console/delivery/data-platform/test", &[]).await;
    assert_eq!(sent.location(), "/console/delivery?done=tested");
    let redis = &app.environment.redis;
    let test = live::take_test(redis, "data-platform").await.expect("redis").expect("a request");
    assert_eq!(test.actor, "ADMIN_TOKEN");
    assert_eq!(live::take_test(redis, "data-platform").await.expect("redis"), None, "one worker takes it");
    visitor.eventually_shows(path, "not sent yet").await;
    let result = live::TestResult {
        id: test.id,
        outcome: Some("refused".into()),
        detail: Some("it answered 401".into()),
        at: clock::now(),
    };
    live::store_test(redis, "data-platform", &result).await.expect("stored");
    visitor.eventually_shows(path, "it answered 401").await;
    visitor.get("/console/actions").await.expect("Test message requested");
    let unknown = visitor.submit(path, "/console/delivery/kafka/test", &[]).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    app.end().await;
}

#[tokio::test]
async fn a_reader_sees_no_button_and_pages_speak_the_language_of_the_browser() {
    let app = TestApp::new().await;
    let coupon = app.environment.campaign(10).await.id;
    insert(&app, letter("data-platform", "1")).await;
    let key = api_key(&app, &[Scope::AdminRead]).await;
    let mut reader = Visitor::with(&app, &key).await;
    for path in
        [&format!("/console/campaigns/{coupon}"), "/console/dead-letters/1", "/console/keys", "/console/dead-letters"]
    {
        let page = reader.get(path).await;
        let forms = page.html.matches("method=\"post\"").count();
        assert_eq!(forms, 1, "{path}: only that to log out");
    }
    let request = reader.request(Method::GET, "/console").header("accept-language", "ko-KR,ko;q=0.9");
    let page = reader.take(request).await;
    page.expect("<html lang=\"ko\">").expect("현황").expect("읽기 전용").expect("남음");
    app.end().await;
}

/// Every list has a bound, and the next page goes on.
#[tokio::test]
async fn lists_are_pages() {
    let app = TestApp::new().await;
    for key in 0..25 {
        insert(&app, letter("data-platform", &key.to_string())).await;
    }
    let mut visitor = Visitor::administrator(&app).await;
    let page = visitor.get("/console/dead-letters?source=data-platform").await;
    let next = page.html.split_once("href=\"?source=data-platform&#38;cursor=");
    let (_, next) = next.unwrap_or_else(|| panic!("a next page: {}", page.html));
    let cursor = next.split('"').next().expect("a cursor");
    let next = visitor.get(&format!("/console/dead-letters?source=data-platform&cursor={cursor}")).await;
    next.expect("/console/dead-letters/1\"");
    assert!(!next.html.contains("/console/dead-letters/25\""), "it was on the first page");
    app.end().await;
}

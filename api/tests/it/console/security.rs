use std::time::Duration;

use dibs_api::{
    access::policy::{Access, CONSOLE, Listener, Policy},
    routes,
};
use dibs_common::{
    domain::{access::Scope, campaign::CampaignTerms},
    testing::{TestEnvironment, open_terms, serve_router},
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Page, Visitor};
use crate::{
    access::{SigningKey, api_key, guarded},
    app::{ADMIN_TOKEN, RULES, TestApp},
};

fn path_of(policy: &Policy, coupon: u64) -> String {
    let uuid = "01890000-0000-7000-8000-000000000000";
    [
        ("{couponId}", coupon.to_string().as_str()),
        ("{rebuildId}", uuid),
        ("{userId}", "7"),
        ("{deadLetterId}", "1"),
        ("{productId}", "1"),
        ("{sink}", "kafka"),
        ("{orderId}", uuid),
        ("{apiKeyId}", "999"),
        ("{name}", "none"),
    ]
    .into_iter()
    .fold(policy.path.to_owned(), |path, (name, value)| path.replace(name, value))
}

async fn ask(visitor: &mut Visitor, policy: &Policy, coupon: u64) -> Page {
    let path = path_of(policy, coupon);
    if policy.path == "/console/events" {
        // The stream does not end: only its head is read.
        let response = visitor.request(Method::GET, &path).send().await.expect("an answer");
        return Page { status: response.status(), headers: response.headers().clone(), html: String::new() };
    }
    if policy.method == "GET" { visitor.get(&path).await } else { visitor.submit("/console/keys", &path, &[]).await }
}

#[tokio::test]
async fn every_page_requires_a_session_of_a_credential_with_its_scope() {
    let rsa = SigningKey::rsa();
    let (app, file) = guarded(&json!({ "keys": [rsa.jwk("rsa")] })).await;
    let coupon = app.environment.campaign(10).await.id.get();
    let (reads, acts) = (api_key(&app, &[Scope::AdminRead]).await, api_key(&app, &[Scope::Admin]).await);
    let others = [Scope::Claims, Scope::Orders, Scope::Points, Scope::Read];
    for (credential, status) in [
        (rsa.of_user(7, "rsa"), 401),
        ("dibs_4s2vN0m8m4jYwq0bQvX1mJtB0yJ9l8Jm3cQm0yF2b5U".into(), 401),
        (String::new(), 401),
        (ADMIN_TOKEN[1..].into(), 401),
        (api_key(&app, &others).await, 403),
    ] {
        let page = Visitor::at(app.address).log_in(&credential, "").await;
        assert_eq!(page.status, status, "{}", page.html);
        assert!(!page.header("set-cookie").contains("dibs_session"), "no session begins");
    }
    for policy in CONSOLE.iter().filter(|policy| policy.path != "/console/logout") {
        let Access::Console(scope) = policy.access else { continue };
        let route = format!("{} {}", policy.method, policy.path);
        let mut stranger = Visitor::at(app.address);
        stranger.cookies.push(("dibs_session".into(), "invented".into()));
        let method = Method::from_bytes(policy.method.as_bytes()).expect("a method");
        let refused = stranger.take(stranger.request(method, &path_of(policy, coupon))).await;
        assert!(refused.location().starts_with("/console/login"), "{route}: {refused:?}");
        let mut reader = Visitor::with(&app, &reads).await;
        let page = ask(&mut reader, policy, coupon).await;
        assert_eq!(page.status == StatusCode::FORBIDDEN, scope == Scope::Admin, "{route} for a reader: {page:?}");
        let mut administrator = Visitor::with(&app, &acts).await;
        let page = ask(&mut administrator, policy, coupon).await;
        let is_login = page.header("location").starts_with("/console/login");
        let is_refused = is_login || [401, 403].contains(&page.status.as_u16());
        assert!(!is_refused && !page.status.is_server_error(), "{route}: {page:?}");
    }
    app.end().await;
    std::fs::remove_file(file).expect("removed");
}

#[tokio::test]
async fn a_session_ends_with_its_key_by_logging_out_and_for_a_stream_as_well() {
    let app = TestApp::new().await;
    let key = api_key(&app, &[Scope::AdminRead]).await;
    let (mut visitor, mut other) = (Visitor::with(&app, &key).await, Visitor::with(&app, &key).await);
    assert_eq!(visitor.get("/console").await.status, StatusCode::OK);
    let submitted = other.submit("/console/keys", "/console/logout", &[]).await;
    assert_eq!(submitted.location(), "/console/login");
    other.cookies.retain(|(name, _)| name != "dibs_session");
    let stream = visitor.request(Method::GET, "/console/events").send().await.expect("a stream");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let revoked = app.request(Method::DELETE, "/admin/keys/1").bearer_auth(ADMIN_TOKEN).send().await;
    assert_eq!(revoked.expect("an answer").status(), StatusCode::OK);
    assert!(visitor.get("/console").await.location().starts_with("/console/login"));
    let rest = tokio::time::timeout(Duration::from_secs(5), stream.bytes()).await;
    assert!(rest.expect("the stream ends with its key").is_ok());
    app.end().await;
}

#[tokio::test]
async fn an_ended_session_stays_ended_for_a_copy_of_its_cookie() {
    let app = TestApp::new().await;
    let mut visitor = Visitor::administrator(&app).await;
    let stolen = visitor.cookies.clone();
    visitor.submit("/console/keys", "/console/logout", &[]).await;
    visitor.cookies = stolen;
    assert_eq!(visitor.get("/console/campaigns").await.location(), "/console/login?next=%2Fconsole%2Fcampaigns");
    app.end().await;
}

#[tokio::test]
async fn a_form_of_another_site_or_session_changes_nothing() {
    let app = TestApp::new().await;
    let coupon = app.environment.campaign(10).await.id;
    let (mut visitor, mut other) = (Visitor::administrator(&app).await, Visitor::administrator(&app).await);
    let path = format!("/console/campaigns/{coupon}/pause");
    let token = visitor.get(&format!("/console/campaigns/{coupon}")).await.hidden("csrf");
    let of_another = other.get("/console/keys").await.hidden("csrf");
    for csrf in ["", "0", &of_another, &token[1..]] {
        let page = visitor.send(&path, &[("csrf", csrf)]).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{csrf}");
    }
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.test"),
        ("origin", "null"),
    ] {
        let request = visitor.form(&path, &[("csrf", &token)]).header(name, value);
        assert_eq!(visitor.take(request).await.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    // The token in the path is none, and neither is a form to log in without its cookie.
    assert_eq!(visitor.send(&format!("{path}?csrf={token}"), &[]).await.status, StatusCode::FORBIDDEN);
    let mut without = Visitor::at(app.address);
    let page = without.send("/console/login", &[("csrf", ""), ("token", ADMIN_TOKEN)]).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let state = "SELECT COUNT(*) FROM coupons WHERE state = 'ACTIVE'";
    assert_eq!(app.environment.count(state).await, 1, "it was not paused");
    let page = visitor.send(&path, &[("csrf", &token)]).await;
    assert_eq!(page.location(), format!("/console/campaigns/{coupon}?done=paused"));
    app.end().await;
}

#[tokio::test]
async fn what_users_and_administrators_write_is_text_on_every_page() {
    const SCRIPT: &str = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>'";
    let app = TestApp::new().await;
    let coupon = app.environment.campaign_of(CampaignTerms { name: SCRIPT.into(), ..open_terms() }).await.id;
    let mut visitor = Visitor::administrator(&app).await;
    let campaign = format!("/console/campaigns/{coupon}");
    let paused = visitor.submit(&campaign, &format!("{campaign}/pause"), &[("reason", SCRIPT)]).await;
    assert!(paused.location().ends_with("done=paused"), "{paused:?}");
    let encoded = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%3E";
    let pages = [
        "/console".to_owned(),
        "/console/campaigns".into(),
        campaign.clone(),
        format!("{campaign}?done={encoded}&rebuild={encoded}"),
        "/console/actions".into(),
        format!("/console/actions?actor={encoded}"),
        format!("/console/campaigns?name={encoded}&status={encoded}"),
        format!("/console/orders?find={encoded}"),
        format!("/console/dead-letters?source={encoded}&watch={encoded}"),
        format!("/console/dead-letters/progress?source={encoded}"),
        format!("/console/users?user={encoded}"),
        format!("/console/login?next={encoded}"),
        format!("/console/{encoded}"),
    ];
    for path in pages {
        let page = visitor.get(&path).await;
        assert!(!page.html.contains("<script>alert") && !page.html.contains("<img src=x"), "{path}: {}", page.html);
    }
    app.end().await;
}

#[tokio::test]
async fn every_answer_keeps_out_scripts_styles_and_frames_from_elsewhere() {
    let app = TestApp::new().await;
    let mut visitor = Visitor::administrator(&app).await;
    for path in ["/console", "/console/keys", "/console/login", "/console/campaigns/0", "/console/assets/none"] {
        let page = visitor.get(path).await;
        let policy = page.header("content-security-policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!((page.header("x-frame-options"), page.header("x-content-type-options")), ("DENY", "nosniff"));
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert!(!page.html.contains(" style=") && !page.html.contains("<style"), "{path}: an inline style");
        let scripts = page.html.matches("<script").count();
        assert_eq!(scripts, page.html.matches("<script src=\"/console/assets/").count(), "{path}: an inline script");
    }
    app.end().await;
}

#[tokio::test]
async fn cookies_are_kept_from_scripts_and_sites_and_are_secure_behind_tls() {
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, |settings| settings.trusted_proxy_hops = 1).await;
    for (scheme, is_secure) in [("http", false), ("https", true)] {
        let mut visitor = Visitor::at(app.address);
        let csrf = visitor.get("/console/login").await.hidden("csrf");
        let form = [("csrf", csrf.as_str()), ("token", ADMIN_TOKEN), ("next", "https://evil.test/")];
        let request = visitor.form("/console/login", &form).header("x-forwarded-proto", scheme);
        let page = visitor.take(request).await;
        assert_eq!(page.location(), "/console", "and not elsewhere");
        let cookie = page.header("set-cookie");
        for part in ["HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=28800"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert_eq!(cookie.contains("Secure"), is_secure, "{cookie}");
    }
    let page = Visitor::at(app.address).log_in(ADMIN_TOKEN, "/console/keys?cursor=7").await;
    assert_eq!(page.location(), "/console/keys?cursor=7");
    app.end().await;
}

#[tokio::test]
async fn the_console_is_served_with_the_administration() {
    let app = TestApp::new().await;
    let shop = serve_router(routes::router(app.app.clone(), Listener::Shop)).await;
    let administration = serve_router(routes::router(app.app.clone(), Listener::Administration)).await;
    for policy in CONSOLE {
        let path = path_of(policy, 1);
        for (url, is_served) in [(&shop, false), (&administration, true)] {
            let method = Method::from_bytes(policy.method.as_bytes()).expect("a method");
            let response = Visitor::at(app.address).client.request(method, format!("{url}{path}")).send().await;
            let page = Page::of(response.expect("an answer")).await;
            let is_unknown = page.html.contains("ROUTE_NOT_FOUND");
            assert_eq!(!is_unknown, is_served, "{} {path} at {url}: {page:?}", policy.method);
        }
    }
    app.end().await;
}

/// The page is needed most when something is down.
#[tokio::test]
async fn without_redis_or_mysql_a_session_goes_on_and_the_page_says_what_is_down() {
    let (mut app, database, redis) = TestApp::behind_proxies().await;
    app.start_worker(RULES);
    let coupon = app.environment.campaign(10).await.id;
    let mut visitor = Visitor::administrator(&app).await;
    redis.shut();
    visitor.eventually_shows("/console", "Redis cannot be used").await;
    redis.open();
    database.shut();
    visitor.eventually_shows("/console", "MySQL cannot be used").await;
    let page = visitor.get(&format!("/console/campaigns/{coupon}")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    page.expect("DEPENDENCY_UNAVAILABLE");
    database.open();
    visitor.eventually_shows("/console", "Nothing is wrong").await;
    app.end().await;
}

//! Every route with every kind of caller. The routes are those of the table of policies, which the tests of documents
//! compare with the OpenAPI document; a route that is in neither is not served.

use std::path::PathBuf;

use dibs_api::{
    access::{
        AuthMode,
        policy::{Access, Owner, POLICIES, Policy},
    },
    settings::ApiSettings,
};
use dibs_common::{clock, domain::access::Scope, identifiers::new_uuid, testing::TestEnvironment};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::tokens::{AUDIENCE, ISSUER, SigningKey, claims, with_claim};
use crate::app::{ADMIN_TOKEN, Answer, RULES, TestApp};

const OWNER: u64 = 7;
const OTHER: u64 = 8;

/// What belongs to the owner.
struct Things {
    coupon: u64,
    product: u64,
    order: String,
    payment: String,
    command: String,
    charge: String,
}

/// An API that requires credentials, with the keys of an issuer.
pub async fn guarded(key_set: &Value) -> (TestApp, PathBuf) {
    guarded_with(key_set, |_| {}).await
}

/// The same with other settings.
pub async fn guarded_with(key_set: &Value, adjust: impl FnOnce(&mut ApiSettings)) -> (TestApp, PathBuf) {
    let file = std::env::temp_dir().join(format!("dibs-test-{}.json", new_uuid()));
    std::fs::write(&file, key_set.to_string()).expect("written");
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, |settings| {
        settings.auth.auth_mode = Some(AuthMode::Required);
        settings.auth.auth_jwks_file = Some(file.clone());
        settings.auth.auth_jwt_issuer = Some(ISSUER.into());
        settings.auth.auth_jwt_audience = Some(AUDIENCE.into());
        adjust(settings);
    });
    (app.await, file)
}

/// A key with these scopes.
pub async fn api_key(app: &TestApp, scopes: &[Scope]) -> String {
    let name = format!("key-{}", new_uuid().simple());
    let created = app.administer("/admin/keys", json!({ "name": name, "scopes": scopes })).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.body["secret"].as_str().expect("a secret").to_owned()
}

impl Things {
    /// Lets the owner have one of each.
    async fn of_owner(app: &TestApp, key: &str) -> Self {
        let coupon = app.environment.campaign(100).await.id.get();
        let product = app.environment.product(1_000, 1_000).await.get();
        let post = async |path: &str, body: Value| {
            let answer = Answer::of(app.request(Method::POST, path).bearer_auth(key).json(&body)).await;
            assert!(answer.status.is_success(), "{path}: {answer:?}");
            answer.body
        };
        let text = |value: &Value| value.as_str().expect("an id").to_owned();
        let charge = text(&post("/points", json!({ "userId": OWNER, "amount": 500_000 })).await["chargeId"]);
        post("/coupons/issue", json!({ "userId": OWNER, "couponId": coupon })).await;
        let items = json!([{ "productId": product, "quantity": 1 }]);
        let order = text(&post("/orders", json!({ "userId": OWNER, "items": items })).await["orderId"]);
        let paid = post("/payments/confirm", json!({ "userId": OWNER, "orderId": order })).await;
        let confirm = app.request(Method::POST, &format!("/orders/{order}/confirm")).bearer_auth(key);
        let confirm = confirm.header("prefer", "respond-async").json(&json!({ "userId": OWNER }));
        let command = text(&Answer::of(confirm).await.body["commandId"]);
        Self { coupon, product, order, payment: text(&paid["paymentId"]), command, charge }
    }

    /// A request of a route about the owner.
    fn request(&self, app: &TestApp, policy: &Policy) -> RequestBuilder {
        let path = policy.path;
        let ids = [
            ("{couponId}", self.coupon.to_string()),
            ("{productId}", self.product.to_string()),
            ("{userId}", OWNER.to_string()),
            ("{orderId}", self.order.clone()),
            ("{paymentId}", self.payment.clone()),
            ("{commandId}", self.command.clone()),
            ("{chargeId}", self.charge.clone()),
            ("{code}", "FORBIDDEN".into()),
            ("{*rest}", "index.html".into()),
        ];
        let mut url = ids.iter().fold(path.to_owned(), |url, (name, id)| url.replace(name, id));
        while let Some((before, rest)) = url.split_once('{') {
            // What administrators look at need not exist.
            let (name, after) = rest.split_once('}').expect("a name");
            let id = if name == "assignmentId" { new_uuid().to_string() } else { "999".into() };
            url = format!("{before}{id}{after}");
        }
        if matches!(policy.access, Access::Users(_, Owner::Query)) {
            url.push_str("?userId=");
            url.push_str(&OWNER.to_string());
        }
        let method = Method::from_bytes(policy.method.as_bytes()).expect("a method");
        let request = app.request(method, &url);
        if policy.method == "GET" { request } else { request.json(&self.body(policy)) }
    }

    fn body(&self, policy: &Policy) -> Value {
        let items = json!([{ "productId": self.product, "quantity": 1 }]);
        match (policy.access, policy.path) {
            (Access::Administrators(_), _) => json!({}),
            (_, "/coupons/issue") => json!({ "userId": OWNER, "couponId": self.coupon }),
            (_, "/orders") => json!({ "userId": OWNER, "items": items }),
            (_, "/orders/{orderId}/confirm" | "/orders/{orderId}/cancel") => json!({ "userId": OWNER }),
            (_, "/payments/confirm") => json!({ "userId": OWNER, "orderId": self.order }),
            (_, "/points") => json!({ "userId": OWNER, "amount": 10_000 }),
            (_, path) => panic!("the matrix needs a body for {path}"),
        }
    }
}

/// Credentials that do not count, with what is wrong with each.
fn refused_credentials(rsa: &SigningKey) -> Vec<(&'static str, String)> {
    let kid = json!({ "kid": "rsa" });
    let public = rsa.public_key();
    let pem = {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", STANDARD.encode(&public))
    };
    let past = clock::now().timestamp() - 3_600;
    let mut of_another_key = rsa.of_user(OWNER, "rsa");
    of_another_key.replace_range(of_another_key.len() - 4.., "AAAA");
    let without = |name: &str| {
        let mut claims = claims(OWNER);
        claims.as_object_mut().expect("claims").remove(name);
        rsa.token(&claims, &kid)
    };
    let with = |name: &str, value: Value| rsa.token(&with_claim(OWNER, name, value), &kid);
    vec![
        ("no token", String::new()),
        ("unknown key", "dibs_4s2vN0m8m4jYwq0bQvX1mJtB0yJ9l8Jm3cQm0yF2b5U".into()),
        ("part of the administrator's token", ADMIN_TOKEN[1..].into()),
        ("expired", with("exp", json!(past))),
        ("no expiry", without("exp")),
        ("not yet valid", with("nbf", json!(clock::now().timestamp() + 3_600))),
        ("wrong audience", with("aud", json!("another"))),
        ("no audience", without("aud")),
        ("wrong issuer", with("iss", json!("https://another.test"))),
        ("no issuer", without("iss")),
        ("no user", with("sub", json!("07"))),
        ("alg none", SigningKey::None.token(&claims(OWNER), &kid)),
        ("alg none with a signature", {
            let none = SigningKey::None.token(&claims(OWNER), &kid);
            format!("{none}{}", rsa.of_user(OWNER, "rsa").rsplit('.').next().expect("a signature"))
        }),
        ("HS256 with the public key", SigningKey::Secret(public).token(&claims(OWNER), &kid)),
        ("HS256 with the public key as PEM", SigningKey::Secret(pem.into_bytes()).token(&claims(OWNER), &kid)),
        ("another key", SigningKey::rsa().of_user(OWNER, "rsa")),
        ("unknown key id", SigningKey::rsa().of_user(OWNER, "another")),
        ("broken signature", of_another_key),
        ("critical extension", rsa.token(&claims(OWNER), &json!({ "kid": "rsa", "crit": ["exp"] }))),
        ("another type", rsa.token(&claims(OWNER), &json!({ "kid": "rsa", "typ": "logout+jwt" }))),
    ]
}

async fn answer(request: RequestBuilder, credential: &str) -> Answer {
    Answer::of(if credential.is_empty() { request } else { request.bearer_auth(credential) }).await
}

fn is_admitted(answer: &Answer) -> bool {
    // A route that is not served is 404 as well.
    let code = answer.body["code"].as_str();
    ![401, 403].contains(&answer.status.as_u16()) && code != Some("ROUTE_NOT_FOUND")
}

#[tokio::test]
async fn every_route_admits_the_callers_that_its_policy_names_and_no_other() {
    let rsa = SigningKey::rsa();
    let (mut app, file) = guarded(&json!({ "keys": [rsa.jwk("rsa")] })).await;
    app.start_worker(RULES);
    let all = api_key(&app, Scope::VARIANTS).await;
    let things = Things::of_owner(&app, &all).await;
    let (owner, other) = (rsa.of_user(OWNER, "rsa"), rsa.of_user(OTHER, "rsa"));
    let mut keys = Vec::new();
    for scope in Scope::VARIANTS {
        let others: Vec<Scope> = Scope::VARIANTS.iter().copied().filter(|other| other != scope).collect();
        // `admin` includes `admin:read`, so a key that lacks the latter lacks both.
        let without: Vec<Scope> = match scope {
            Scope::AdminRead => others.into_iter().filter(|other| *other != Scope::Admin).collect(),
            _ => others,
        };
        keys.push((*scope, api_key(&app, &[*scope]).await, api_key(&app, &without).await));
    }
    for policy in POLICIES {
        let route = format!("{} {}", policy.method, policy.path);
        let ask = async |credential: &str| answer(things.request(&app, policy), credential).await;
        for (name, credential) in refused_credentials(&rsa) {
            let answer = ask(&credential).await;
            match policy.access {
                Access::Public => assert!(is_admitted(&answer), "{route}, {name}: {answer:?}"),
                _ => assert_eq!(answer.code(), "UNAUTHENTICATED", "{route}, {name}"),
            }
        }
        let (Access::Users(scope, _) | Access::Administrators(scope)) = policy.access else { continue };
        let (_, with, without) = keys.iter().find(|(of, ..)| *of == scope).expect("keys of the scope");
        let lacking = ask(without).await;
        assert_eq!((lacking.code(), &lacking.body["requiredScope"]), ("FORBIDDEN", &json!(scope)), "{route}");
        let administrator = ask(ADMIN_TOKEN).await;
        if matches!(policy.access, Access::Administrators(_)) {
            assert!(is_admitted(&administrator), "{route}: {administrator:?}");
            assert_eq!(ask(&owner).await.code(), "FORBIDDEN", "{route}");
        } else {
            assert_eq!(administrator.code(), "FORBIDDEN", "{route}");
            owned(policy, &things, [&owner, &other, with], &app).await;
        }
        let admitted = ask(with).await;
        assert!(is_admitted(&admitted), "{route}: {admitted:?}");
    }
    app.stop_worker().await;
    app.work().await;
    app.end().await;
    std::fs::remove_file(file).expect("removed");
}

/// Of a route that users call: it is the owner's, and no answer shows another user whether there is something.
async fn owned(policy: &Policy, things: &Things, [owner, other, key]: [&String; 3], app: &TestApp) {
    let Access::Users(_, rule) = policy.access else { return };
    let route = format!("{} {}", policy.method, policy.path);
    let refused = answer(things.request(app, policy), other).await;
    if rule == Owner::Loaded {
        let nothing = Things {
            coupon: things.coupon,
            product: things.product,
            order: new_uuid().to_string(),
            payment: new_uuid().to_string(),
            command: new_uuid().to_string(),
            charge: new_uuid().to_string(),
        };
        let missing = answer(nothing.request(app, policy), other).await;
        assert_eq!(refused.status, 404, "{route}");
        assert_eq!(shape(&refused, things), shape(&missing, &nothing), "{route}: both look the same");
    } else {
        assert_eq!(refused.code(), "FORBIDDEN", "{route}");
    }
    let own = answer(things.request(app, policy), owner).await;
    assert!(is_admitted(&own) && own.status != 404, "{route}: {own:?}");
    if policy.method == "GET" {
        let of_server = answer(things.request(app, policy), key).await;
        assert_eq!((own.status.as_u16(), &own.body), (200, &of_server.body), "{route}");
    }
}

/// A problem without the ids in it.
fn shape(problem: &Answer, things: &Things) -> String {
    let mut body = problem.body.clone();
    body["requestId"] = Value::Null;
    let ids = [&things.order, &things.payment, &things.command, &things.charge];
    ids.into_iter().fold(body.to_string(), |text, id| text.replace(id.as_str(), "ID"))
}

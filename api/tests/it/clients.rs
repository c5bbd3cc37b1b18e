//! Clients: the generated ones, and the examples, each where its language is on the machine.

use std::{collections::BTreeMap, process::Stdio};

use dibs_common::{
    clock,
    identifiers::{CouponId, ProductId},
    integrations::webhooks::{
        Delivery, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookEndpoint, WebhookSecrets,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::app::TestApp;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A shop with a coupon for each of some users, and with a product, which they can buy.
struct Shop {
    app: TestApp,
    coupon: CouponId,
    product: ProductId,
}

impl Shop {
    async fn open(users: std::ops::Range<u64>) -> Self {
        let app = TestApp::with_worker().await;
        let coupon = app.environment.campaign(10).await.id;
        let product = app.environment.product(5_000, 10).await;
        for user in users {
            assert_eq!(app.post("/points", json!({ "userId": user, "amount": 20_000 })).await.status, 200);
        }
        Self { app, coupon, product }
    }

    /// Runs a program in the checkout, for a user; what it printed on standard output and on standard error.
    async fn run(&self, program: &str, arguments: &[&str], user: u64) -> (String, String) {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(ROOT).stdin(Stdio::null()).kill_on_drop(true);
        command.env("API_URL", format!("http://{}", self.app.address)).env("USER_ID", user.to_string());
        command.env("COUPON", self.coupon.to_string()).env("PRODUCT", self.product.to_string());
        let ended = command.output().await.expect("the program");
        let [output, errors] = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        assert!(ended.status.success(), "{program} {arguments:?}: {output}{errors}");
        (output, errors)
    }

    async fn expect_coupon_and_order_of(&self, user: u64) {
        let coupons = self.app.get(&format!("/users/{user}/coupons")).await;
        assert_eq!(coupons.body["items"][0]["couponId"], json!(self.coupon), "{coupons:?}");
        let orders = self.app.get(&format!("/orders?userId={user}")).await;
        assert_eq!(orders.body["items"][0]["status"], "PAY_DONE", "{orders:?}");
    }
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Whether the programs are on the machine. Says so if one is not.
async fn has(programs: &[&str]) -> bool {
    for program in programs {
        let mut command = Command::new(program);
        let found = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("not run: no {program} on this machine");
            return false;
        }
    }
    true
}

#[tokio::test]
async fn generated_clients_claim_order_and_read_a_problem() {
    if !has(&["bash"]).await {
        return;
    }
    let shop = Shop::open(1..3).await;
    let (output, errors) = shop.run("scripts/clients", &[], 1).await;
    // What cannot be installed is left out, with a sentence.
    for (client, user) in [("TypeScript", 1), ("Python", 2)] {
        if !errors.contains(&format!("left out, {client}")) {
            shop.expect_coupon_and_order_of(user).await;
        }
    }
    let left_out = errors.matches("left out, TypeScript").count() + errors.matches("left out, Python").count();
    for line in ["claim: ", "order: PAY_DONE 5000", "problem: COUPON_ALREADY_ISSUED "] {
        let count = output.lines().filter(|printed| printed.starts_with(line)).count();
        assert_eq!(count, 2 - left_out, "{line}\n{output}{errors}");
    }
    eprintln!("{errors}");
    shop.app.end().await;
}

#[tokio::test]
async fn examples_claim_order_and_read_a_problem() {
    let shop = Shop::open(1..4).await;
    for (user, programs, example) in [
        (1, &["bash", "curl"][..], "clients/examples/curl/claim.sh"),
        (2, &["node"], "clients/examples/node/claim.mjs"),
        (3, &["python3"], "clients/examples/python/claim.py"),
    ] {
        if !has(programs).await {
            continue;
        }
        let (output, _) = shop.run(programs[0], &[example], user).await;
        let line = |line: &'_ str| {
            let (name, answer) = line.split_once(": ").expect("a name");
            let (status, body) = answer.split_once(' ').expect("a status");
            (name.to_owned(), (status.to_owned(), serde_json::from_str(body).expect("JSON")))
        };
        let printed: BTreeMap<String, (String, Value)> = output.lines().map(line).collect();
        let [(claimed, claim), (ordered, order), (refused, problem)] =
            ["claim", "order", "problem"].map(|name| printed[name].clone());
        assert_eq!((claimed.as_str(), &claim["status"]), ("200", &json!("ISSUED")), "{example}: {output}");
        assert_eq!((ordered.as_str(), &order["status"]), ("201", &json!("PAY_DONE")), "{example}: {output}");
        assert_eq!((refused.as_str(), &problem["code"]), ("409", &json!("COUPON_ALREADY_ISSUED")), "{example}");
        assert_eq!(problem["claim"]["claimId"], claim["claimId"], "{example}: {output}");
        shop.expect_coupon_and_order_of(user).await;
    }
    shop.app.end().await;
}

#[tokio::test]
async fn examples_verify_webhooks() {
    for (program, example) in
        [("node", "clients/examples/node/webhook.mjs"), ("python3", "clients/examples/python/webhook.py")]
    {
        if !has(&[program]).await {
            continue;
        }
        let mut command = Command::new(program);
        command.arg(example).current_dir(ROOT).env("WEBHOOK_SECRET", SECRET).env_remove("PORT");
        let mut receiver = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the receiver");
        let mut lines = BufReader::new(receiver.stdout.take().expect("its output")).lines();
        let mut next = async || lines.next_line().await.expect("text").expect("a line");
        let url = format!("http://127.0.0.1:{}/", next().await);
        let secrets = |secrets: &str| WebhookSecrets::parse(&secrets.into()).expect("secrets");
        let signed_with =
            |key: &str| WebhookEndpoint::at("NOTIFICATION_URL", &url.as_str().into(), secrets(key)).expect("a URL");
        let body = br#"{"type":"coupon.issued","timestamp":"2026-11-27T03:00:00.302Z","data":{"userId":1}}"#;
        // While a secret is replaced, a message has two signatures. The second time it is a repeat.
        for keys in [SECRET, &format!("{OTHER_SECRET} {SECRET}")] {
            assert_eq!(signed_with(keys).send("event-1", body[..].into(), None).await, Delivery::Accepted, "{example}");
        }
        let refused = signed_with(OTHER_SECRET).send("event-2", body[..].into(), None).await;
        assert!(matches!(refused, Delivery::Refused(_)), "{example}: {refused:?}");
        for (age, expected) in [(360, 400), (240, 204)] {
            let timestamp = clock::now().timestamp() - age;
            let request = reqwest::Client::new().post(&url).header(ID_HEADER, "event-3");
            let signature = secrets(SECRET).signatures("event-3", timestamp, body);
            let request = request.header(TIMESTAMP_HEADER, timestamp).header(SIGNATURE_HEADER, signature);
            let answer = request.body(&body[..]).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), expected, "{example}: {age} s old");
        }
        assert_eq!([next().await, next().await], ["event-1 coupon.issued", "event-3 coupon.issued"], "{example}");
    }
}

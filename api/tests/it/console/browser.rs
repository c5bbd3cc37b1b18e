//! What people do on the console, in a real browser.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dibs_common::{
    clock, db,
    domain::{campaign::CampaignTerms, dead_letter::Redriven},
    identifiers::CouponId,
    testing::{eventually, open_terms},
};
use futures::{StreamExt as _, stream};

use super::{
    chromium::Chromium,
    pages::{insert, letter},
};
use crate::app::{ADMIN_TOKEN, RULES, TestApp};

const CLAIMS: u64 = 20_000;

impl Chromium {
    async fn log_in(&self, app: &TestApp) {
        self.open(&format!("http://{}/console", app.address)).await;
        // By keyboard alone: the field has the focus.
        let keys: Vec<String> = ADMIN_TOKEN.chars().map(String::from).collect();
        let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        keys.push("\u{e007}");
        self.press(&keys).await;
        self.eventually_shows("h1", "Now").await;
    }
}

fn number(text: &str) -> u64 {
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

/// Every distinct number that an element shows while `work` runs.
async fn watch(browser: &Chromium, selector: &str, work: impl Future<Output = ()>) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut work = std::pin::pin!(work);
    loop {
        let shown = number(&browser.text(selector).await);
        if seen.last() != Some(&shown) {
            seen.push(shown);
        }
        if tokio::time::timeout(Duration::from_millis(100), &mut work).await.is_ok() {
            return seen;
        }
    }
}

async fn burst(app: &TestApp, coupon: CouponId) {
    let accepted = AtomicU64::new(0);
    let claims = stream::iter(1..=CLAIMS).for_each_concurrent(64, |user| {
        let accepted = &accepted;
        async move {
            if app.claim(coupon, user).await.status == 202 {
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    claims.await;
    assert_eq!(accepted.load(Ordering::Relaxed), 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_on_duty_watches_a_burst_pauses_raises_redrives_and_finds_a_users_story() {
    let Some(browser) = Chromium::start().await else { return };
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let terms = CampaignTerms { name: "Noon coffee".into(), total_quantity: 10_000, ..open_terms() };
    let coupon = app.environment.campaign_of(terms).await.id;
    browser.log_in(&app).await;
    let remaining = format!("#campaign-{coupon} .big");
    browser.eventually_shows(&remaining, "10,000").await;
    let seen = watch(&browser, &remaining, burst(&app, coupon)).await;
    assert!(seen.len() > 2 && seen.is_sorted_by(|one, other| one >= other), "the number moves: {seen:?}");
    browser.eventually(&remaining, "0", |text| text == "0").await;
    browser.eventually_shows(&format!("#campaign-{coupon} .badge"), "exhausted").await;
    assert_eq!(app.claim(coupon, 15_000).await.code(), "COUPON_EXHAUSTED");
    let is_confirmed = |text: &str| text.replace('\n', " ").contains("On the way 0");
    browser.eventually(&format!("#campaign-{coupon} .figures"), "nothing on the way", is_confirmed).await;
    pause_and_raise(&browser, &app, coupon).await;
    redrive(&browser, &app).await;
    // Refused claims are stored a thousand a second, and the burst had ten thousand.
    let stored = "SELECT COUNT(*) FROM claim_attempts WHERE user_id = 15000";
    let is_stored = async || app.environment.count(stored).await > 0;
    eventually("the user's refusal is stored", Duration::from_secs(30), is_stored).await;
    story(&browser, coupon).await;
    assert_eq!(browser.faults().await, Vec::<String>::new(), "no script failed, and nothing broke the policy");
    browser.quit().await;
    app.stop_worker().await;
    app.work().await;
    app.end().await;
}

async fn pause_and_raise(browser: &Chromium, app: &TestApp, coupon: CouponId) {
    browser.click(&format!("#campaign-{coupon} h2 a")).await;
    browser.eventually_shows("h1", "Noon coffee").await;
    browser.click("details:has(form[action$='/quantity']) > summary").await;
    browser.write("form[action$='/quantity'] input[name=quantity]", "10005").await;
    browser.click("form[action$='/quantity'] button").await;
    browser.eventually_shows("#dry-run", "10,005").await;
    browser.click("#dry-run button").await;
    browser.eventually_shows(".notice", "The campaign is changed.").await;
    browser.eventually_shows("#campaign-live .big", "5").await;
    browser.click("details:has(form[action$='/pause']) > summary").await;
    browser.write("form[action$='/pause'] input[name=reason]", "the price tag was wrong").await;
    browser.click("form[action$='/pause'] button").await;
    browser.eventually_shows(".notice", "The campaign is paused.").await;
    assert_eq!(app.claim(coupon, CLAIMS + 1).await.code(), "CAMPAIGN_PAUSED");
    browser.click("form[action$='/resume'] button").await;
    browser.eventually_shows(".notice", "takes claims again").await;
    assert_eq!(app.claim(coupon, CLAIMS + 1).await.status, 202);
    browser.click("button[hx-target='#audit']").await;
    browser.eventually_shows("#audit", "All claims agree.").await;
}

async fn redrive(browser: &Chromium, app: &TestApp) {
    insert(app, letter("data-platform", "0-7-0")).await;
    browser.click(".menu a[href='/console/dead-letters']").await;
    browser.click("a[href='/console/dead-letters/1']").await;
    browser.write("form[action$='/redrive'] input[name=reason]", "the receiver is back").await;
    browser.click("form[action$='/redrive'] button").await;
    browser.eventually_shows(".notice", "A redrive is requested.").await;
    browser.eventually_shows("#status", "redrive requested").await;
    // What the worker of the receiver does.
    let mut connection = app.environment.database.pool().acquire().await.expect("a connection");
    let letters = db::dead_letters::list_to_redrive(&mut connection, "data-platform", None, 1).await.expect("read");
    let sent = Redriven::Sent { attempts: 1 };
    db::dead_letters::mark_redriven(&mut connection, letters[0].id, &sent, clock::now()).await.expect("marked");
    drop(connection);
    browser.run("location.reload()").await;
    browser.eventually_shows("#status", "redriven").await;
}

async fn story(browser: &Chromium, coupon: CouponId) {
    browser.click(".menu a[href='/console/users']").await;
    browser.write("#user", "15000").await;
    browser.press(&["\u{e007}"]).await;
    browser.eventually_shows("#answers", "Noon coffee").await;
    browser.eventually_shows("#answers", "all coupons were gone").await;
    browser.write("input[name=couponId]", &coupon.to_string()).await;
    browser.press(&["\u{e007}"]).await;
    browser.eventually_shows("#answers", "did not get it").await;
}

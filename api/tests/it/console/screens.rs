//! Pictures of every page for a person to look at, and what axe-core says of each.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dibs_common::{clock, db};
use serde_json::Value;

use super::{chromium::Chromium, shop};
use crate::app::{ADMIN_TOKEN, RULES, TestApp};

const AXE: &str = "axe-core@4.14.1";
const SIZES: [u32; 2] = [390, 1_600];

/// The folder of what tests write.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The source of axe-core, from npm; none, with a sentence, where it cannot be had.
#[expect(clippy::print_stderr, reason = "the sentence is for the person who runs the tests")]
fn axe() -> Option<String> {
    let folder = folder();
    let file = folder.join("node_modules/axe-core/axe.min.js");
    if !file.exists() {
        let mut install = Command::new("npm");
        install.args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(AXE);
        let _failed = install.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    let source = fs::read_to_string(file).ok();
    if source.is_none() {
        eprintln!("accessibility is not tested: npm cannot install {AXE}");
    }
    source
}

/// The serious faults of the page.
async fn faults(browser: &Chromium, axe: &str) -> Vec<String> {
    let script = format!(
        "{axe}; return axe.run(document, {{ resultTypes: ['violations'] }}).then((found) => found.violations\
         .filter((fault) => ['serious', 'critical'].includes(fault.impact))\
         .map((fault) => fault.id + ': ' + fault.nodes.map((node) => node.target.join(' ') + ' ' + node.failureSummary).slice(0, 3).join(' | ')))"
    );
    let found = browser.run(&script).await;
    found.as_array().expect("a list").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A page must not be wider than its window: what is, scrolls inside.
async fn is_too_wide(browser: &Chromium) -> bool {
    let wide = browser.run("return document.documentElement.scrollWidth > window.innerWidth + 1").await;
    wide.as_bool().unwrap_or(true)
}

fn pages(shop: &shop::Shop) -> Vec<(&'static str, String)> {
    let campaign = format!("/console/campaigns/{}", shop.open);
    vec![
        ("now", "/console".into()),
        ("campaigns", "/console/campaigns".into()),
        ("campaign", campaign),
        ("campaign-paused", format!("/console/campaigns/{}", shop.paused)),
        ("campaign-new", "/console/campaigns/new".into()),
        ("users", "/console/users".into()),
        ("user", "/console/users/6".into()),
        ("dead-letters", "/console/dead-letters".into()),
        ("dead-letter", "/console/dead-letters/1".into()),
        ("ranking", "/console/ranking?days=1".into()),
        ("product", format!("/console/products/{}", shop.product)),
        ("delivery", "/console/delivery".into()),
        ("orders", "/console/orders".into()),
        ("order", format!("/console/orders/{}", shop.order)),
        ("actions", "/console/actions".into()),
        ("keys", "/console/keys".into()),
        ("problem", "/console/campaigns/999999".into()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_both_sizes_in_both_colours_and_has_no_serious_fault() {
    let Some(browser) = Chromium::start().await else { return };
    let (axe, folder) = (axe(), folder());
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let pool = app.environment.database.pool();
    for sink in ["data-platform", "notifications", "kafka"] {
        db::outbox::register_sink(&pool, sink, clock::now()).await.expect("registered");
    }
    drop(pool);
    let shop = shop::fill(&app).await;
    let base = format!("http://{}", app.address);
    browser.look(1_600, false, "en").await;
    browser.open(&format!("{base}/console/login")).await;
    let mut found = Vec::new();
    let mut check = async |name: &str, look: &str| {
        if is_too_wide(&browser).await {
            found.push(format!("{name}, {look}: wider than the window"));
        }
        found.extend(browser.faults().await.into_iter().map(|fault| format!("{name}, {look}: {fault}")));
        if let Some(axe) = &axe {
            found.extend(faults(&browser, axe).await.into_iter().map(|fault| format!("{name}, {look}: {fault}")));
        }
        browser.picture(&folder.join(format!("{name}-{look}.png"))).await;
    };
    check("login", "1600-light").await;
    browser.write("#token", ADMIN_TOKEN).await;
    browser.click("main button").await;
    browser.eventually_shows("#live", "Noon coffee").await;
    for width in SIZES {
        for (is_dark, language) in [(false, "en"), (true, "ko")] {
            browser.look(width, is_dark, language).await;
            let look = format!("{width}-{}", if is_dark { "dark" } else { "light" });
            for (name, path) in pages(&shop) {
                browser.open(&format!("{base}{path}")).await;
                check(name, &look).await;
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    browser.quit().await;
    app.stop_worker().await;
    app.work().await;
    app.environment.execute("DELETE FROM dead_letters").await;
    app.end().await;
}

//! What a process shows of itself: health, metrics by name, log lines.

use std::time::Duration;

use dibs_common::{
    metric_table::METRICS,
    telemetry,
    testing::{LogCapture, LogLine, TestEnvironment, eventually},
};
use reqwest::Method;
use tracing::Level;

use crate::app::{Answer, TestApp, claim_body};

/// The sum of the samples of a metric that have all of these labels; none without a sample.
fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples = page.lines().filter(|line| {
        let is_named = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        is_named && labels.iter().all(|label| line.contains(label))
    });
    let values = samples.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>().expect("a number"));
    values.reduce(|sum, value| sum + value)
}

#[tokio::test]
async fn a_process_is_live_and_ready_and_its_metrics_move() {
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let metrics = telemetry::metrics().expect("the only recorder of this process");
    let app = TestApp::with_metrics(environment, shared, metrics).await;
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    let coupon = app.environment.campaign(1).await.id;
    let waiting = app.request(Method::POST, "/coupons/issue").header("prefer", "wait=3");
    assert_eq!(Answer::of(waiting.json(&claim_body(coupon, 1))).await.status, 202);
    assert_eq!(app.claim(coupon, 2).await.status, 422);
    let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
    eventually("it is remembered", Duration::from_secs(1), async || batcher.remembers_exhausted()).await;
    assert_eq!(app.claim(coupon, 3).await.status, 422);

    let page = app.request(Method::GET, "/metrics").send().await.expect("metrics").text().await.expect("text");
    let expect = |name: &str, labels: &[&str], expected: f64| {
        assert_eq!(sample(&page, name, labels), Some(expected), "{name} {labels:?} in\n{page}");
    };
    expect("dibs_claims_total", &["decision=\"accepted\""], 1.0);
    expect("dibs_claims_total", &["decision=\"refused\""], 1.0);
    expect("dibs_claims_total", &["decision=\"refused_locally\""], 1.0);
    expect("dibs_claim_batch_size_count", &[], 2.0);
    let calls = ["route=\"/coupons/issue\"", "method=\"POST\""];
    expect("dibs_http_request_duration_seconds_count", &[calls[0], calls[1], "status=\"202\""], 1.0);
    expect("dibs_http_request_duration_seconds_count", &[calls[0], calls[1], "status=\"422\""], 2.0);
    expect("dibs_http_request_duration_seconds_count", &["route=\"/health/ready\"", "status=\"200\""], 1.0);
    assert!(sample(&page, "dibs_outcome_look_ups_total", &["kind=\"claim\""]) >= Some(1.0), "{page}");
    expect("dibs_build_info", &[&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))], 1.0);
    for name in [
        "dibs_claims_total",
        "dibs_claim_batch_size",
        "dibs_http_request_duration_seconds",
        "dibs_outcome_look_ups_total",
        "dibs_build_info",
    ] {
        let metric = METRICS.iter().find(|metric| metric.name == name).expect("in the table");
        for line in [format!("# HELP {name} {}", metric.help), format!("# TYPE {name} {}", metric.kind)] {
            assert!(page.lines().any(|found| found == line), "'{line}' is not in\n{page}");
        }
    }
    app.work().await;
    app.end().await;
}

async fn logged(app: &TestApp, url: &str, request_id: &str) -> (Answer, Vec<LogLine>) {
    let capture = LogCapture::start();
    let answer = Answer::of(app.client.get(url).header("x-request-id", request_id)).await;
    (answer, capture.lines_with("request_id", request_id))
}

#[tokio::test]
async fn a_defect_is_logged_as_an_error_and_an_unreachable_dependency_as_a_warning() {
    let (app, database, _redis) = TestApp::behind_proxies().await;
    let url = format!("{}/panic", app.serve_panic().await);
    let (answer, lines) = logged(&app, &url, "defect").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (500, "INTERNAL"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((lines[0].level, &*lines[0].message), (Level::ERROR, "request failed: internal error"));
    assert_eq!(lines[0].fields["instance"], "/panic");
    assert!(lines[0].fields["cause"].contains("on purpose"), "{lines:?}");

    database.shut();
    let url = format!("http://{}/products", app.address);
    let (answer, lines) = logged(&app, &url, "unreachable").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((lines[0].level, &*lines[0].message), (Level::WARN, "dependency unavailable"));
    assert_eq!((&*lines[0].fields["instance"], &*lines[0].fields["dependency"]), ("/products", "mysql"));
    assert!(!lines[0].fields["cause"].is_empty());

    let (answer, lines) = logged(&app, &format!("http://{}/nothing", app.address), "refused").await;
    assert_eq!((answer.status.as_u16(), lines.len()), (404, 0), "a caller's mistake is not logged");
    database.open();
    app.end().await;
}

use std::time::Duration;

use dibs_common::{
    clock,
    domain::campaign::CampaignTerms,
    live::{self, ProcessKind, Series},
    testing::{eventually, open_terms},
};
use reqwest::{Method, Response, StatusCode};

use super::Visitor;
use crate::app::{RULES, TestApp};

const LIMIT: Duration = Duration::from_secs(20);

/// The next event of a stream, whole.
async fn next_event(stream: &mut Response, buffer: &mut String) -> String {
    loop {
        if let Some((event, rest)) = buffer.split_once("\n\n") {
            let (event, rest) = (event.to_owned(), rest.to_owned());
            *buffer = rest;
            return event;
        }
        let chunk = tokio::time::timeout(LIMIT, stream.chunk()).await.expect("in time").expect("a chunk");
        buffer.push_str(std::str::from_utf8(&chunk.expect("more")).expect("text"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_of_all_processes_are_summed_and_a_process_that_is_gone_is_missing() {
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let second = app.second().await;
    let terms = CampaignTerms { name: "Noon coffee".into(), total_quantity: 40, ..open_terms() };
    let coupon = app.environment.campaign_of(terms).await.id;
    for user in 1..=25 {
        assert_eq!(app.claim(coupon, user).await.status, 202);
    }
    for user in 1..=25 {
        assert_eq!(second.claim(coupon, 100 + user).await.status.is_success(), user <= 15);
    }
    let redis = &app.environment.redis;
    let sums = async || {
        let mut series = Series::default();
        series.refresh(redis, coupon, clock::now()).await.expect("redis");
        let points = series.points(clock::now() + chrono::TimeDelta::seconds(1), 5);
        points.iter().fold([0; 3], |[a, r, c], rates| [a + rates.accepted, r + rates.refused, c + rates.confirmed])
    };
    eventually("all are counted", LIMIT, async || sums().await == [40, 10, 40]).await;
    let processes = live::list_processes(redis).await.expect("redis");
    let kinds: Vec<ProcessKind> = processes.iter().map(|process| process.kind).collect();
    assert_eq!(kinds, [ProcessKind::Api, ProcessKind::Api, ProcessKind::Worker]);
    second.end().await;
    eventually("a process that ends in order is not missing", LIMIT, async || {
        live::list_processes(redis).await.expect("redis").len() == 2
    })
    .await;
    app.stop_worker().await;
    let mut visitor = Visitor::administrator(&app).await;
    visitor.eventually_shows("/console", "No worker reports").await.expect("Noon coffee");
    app.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_moves_within_two_seconds_and_streams_are_bounded_and_end_with_the_process() {
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let terms = CampaignTerms { name: "Noon coffee".into(), total_quantity: 40, ..open_terms() };
    let coupon = app.environment.campaign_of(terms).await.id;
    let visitor = Visitor::administrator(&app).await;
    let open = async || visitor.request(Method::GET, "/console/events?view=now").send().await.expect("a stream");
    let mut stream = open().await;
    let mut buffer = String::new();
    let first = next_event(&mut stream, &mut buffer).await;
    assert!(first.starts_with("event: live\ndata: ") && first.contains("<span class=\"big\">40</span>"), "{first}");
    assert_eq!(app.claim(coupon, 1).await.status, 202);
    let claimed = tokio::time::Instant::now();
    while !next_event(&mut stream, &mut buffer).await.contains("<span class=\"big\">39</span>") {}
    assert!(claimed.elapsed() < Duration::from_secs(3), "{:?}", claimed.elapsed());
    let mut streams = Vec::new();
    for _ in 0..199 {
        streams.push(open().await);
    }
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    let refused = open().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text().await.expect("a page").contains("OVERLOADED"));
    drop(streams);
    eventually("places are free again", LIMIT, async || open().await.status() == StatusCode::OK).await;
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    app.app.stopping.cancel();
    tokio::time::timeout(LIMIT, ended).await.expect("a stream does not hold up the end of the process");
    app.end().await;
}

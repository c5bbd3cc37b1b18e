//! Traces by OTLP: an API of its own and a worker, each of which sends its spans to a collector.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use dibs_common::{
    supervisor::Supervisor,
    testing::{TestEnvironment, eventually, serve_router},
    traces::{TraceExport, TraceSettings},
};
use dibs_worker::{Worker, webhooks::WebhookSettings};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as AnyValue},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::process::Api;

const LIMIT: Duration = Duration::from_secs(20);
const CLAIM: &str = "11111111111111111111111111111111";
const ORDER: &str = "22222222222222222222222222222222";
const CALLER: &str = "00f067aa0ba902b7";

/// What came to it: spans with the service that sent them, and webhooks with their header `traceparent`.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    webhooks: Arc<Mutex<Vec<(String, Value)>>>,
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let router = Router::new().route("/v1/traces", post(spans)).route("/hook", post(webhook));
        let url = serve_router(router.with_state(collector.clone())).await;
        (collector, url)
    }

    /// The span of that name, once it has come. There is one in the trace.
    async fn span(&self, trace: &str, name: &str) -> (String, Span) {
        let found = || -> Vec<(String, Span)> {
            let spans = self.spans.lock().expect("spans");
            let is_it = |span: &Span| hexadecimal(&span.trace_id) == trace && span.name == name;
            spans.iter().filter(|(_, span)| is_it(span)).cloned().collect()
        };
        eventually(name, LIMIT, async || !found().is_empty()).await;
        let mut found = found();
        assert_eq!(found.len(), 1, "{name}");
        found.remove(0)
    }

    /// The webhook of the trace whose message is of that type, once it has come. Those of other calls may come first.
    async fn webhook(&self, trace: &str, kind: &str) -> (String, Value) {
        let is_it = |body: &Value| {
            let parent = body["traceparent"].as_str().unwrap_or_default();
            body["type"] == kind && parent.contains(trace)
        };
        let found = || self.webhooks.lock().expect("webhooks").iter().find(|(_, body)| is_it(body)).cloned();
        eventually(kind, LIMIT, async || found().is_some()).await;
        found().expect("there")
    }
}

async fn spans(State(collector): State<Collector>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("protocol buffers");
    for of_process in request.resource_spans {
        let service = text(&of_process.resource.expect("a resource").attributes, "service.name");
        let sent = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.spans.lock().expect("spans").extend(sent.map(|span| (service.clone(), span)));
    }
}

async fn webhook(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    let trace = headers.get("traceparent").map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default();
    let message = serde_json::from_slice(&body).expect("JSON");
    collector.webhooks.lock().expect("webhooks").push((trace, message));
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The trace of one sampled call: the call, what a worker did with it as part of a batch, and the webhook about it.
async fn expect_trace(collector: &Collector, trace: &str, [call, stream, sink, event]: [&str; 4]) {
    let (service, of_call) = collector.span(trace, call).await;
    let parent = hexadecimal(&of_call.parent_span_id);
    assert_eq!((service.as_str(), of_call.kind(), parent.as_str()), ("dibs-api", SpanKind::Server, CALLER));
    assert_eq!(text(&of_call.attributes, "dibs.request_id"), trace);
    let call_id = hexadecimal(&of_call.span_id);

    let (service, processed) = collector.span(trace, &format!("{stream} process")).await;
    assert_eq!((service.as_str(), hexadecimal(&processed.parent_span_id)), ("dibs-worker", call_id.clone()));
    let [link] = &*processed.links else { panic!("it links to its batch: {processed:?}") };
    let (_, batch) = collector.span(&hexadecimal(&link.trace_id), &format!("{stream} batch")).await;
    let linked: Vec<_> =
        batch.links.iter().map(|link| (hexadecimal(&link.trace_id), hexadecimal(&link.span_id))).collect();
    assert_eq!(linked, [(trace.to_owned(), call_id.clone())], "the batch links to the calls");

    let (header, message) = collector.webhook(trace, event).await;
    let (_, sent) = collector.span(trace, &format!("{sink} send")).await;
    assert_eq!(header, format!("00-{trace}-{}-01", hexadecimal(&sent.span_id)));
    assert_eq!(message["traceparent"], format!("00-{trace}-{call_id}-01"));
    assert_eq!(hexadecimal(&sent.parent_span_id), call_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_call_is_one_trace_from_its_caller_to_the_webhooks() {
    let (collector, url) = Collector::start().await;
    let environment = TestEnvironment::new().await;
    // Only what callers sample.
    let partitions = environment.settings.claim_partitions.to_string();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_TRACES_SAMPLER_ARG", "0"), ("CLAIM_PARTITIONS", &partitions)];
    let api = Api::start(&environment, "", &variables).await;
    let traces = TraceSettings { otel_exporter_otlp_endpoint: Some(url.clone()), otel_traces_sampler_arg: "0".into() };
    let traces = TraceExport::start(&traces, "dibs-worker").expect("started");
    let hook = format!("{url}/hook");
    let webhooks = WebhookSettings {
        data_platform_url: Some((*hook).into()),
        notification_url: Some((*hook).into()),
        webhook_secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
    };
    let stopping = CancellationToken::new();
    let worker = Worker {
        webhooks: webhooks.webhooks().expect("receivers"),
        ..Worker::new(&environment.database, &environment.redis, Supervisor::new(stopping.clone()))
    };
    let working = tokio::spawn(worker.run(environment.settings.claim_partitions));
    // A sink receives what happens after its registration.
    let registered = "SELECT COUNT(*) FROM sinks WHERE name IN ('data-platform', 'notifications')";
    eventually("the receivers are known", LIMIT, async || environment.count(registered).await == 2).await;
    let (campaign, product) = (environment.campaign(10).await, environment.product(10, 100).await);

    let client = reqwest::Client::new();
    let call = async |path: &str, body: Value, trace: &str, flags: &str| {
        let request = client.post(format!("http://{}{path}", api.address)).json(&body).header("x-request-id", trace);
        let request = request.header("traceparent", format!("00-{trace}-{CALLER}-{flags}"));
        request.send().await.expect("answered").status().as_u16()
    };
    let claim = |user: u64| json!({"userId": user, "couponId": campaign.id});
    assert_eq!(call("/coupons/issue", claim(1), CLAIM, "01").await, 202);
    let order = json!({"userId": 2, "items": [{"productId": product, "quantity": 1}]});
    assert_eq!(call("/orders", order, ORDER, "01").await, 201);
    // What its caller does not sample, or what cannot be read.
    assert_eq!(call("/coupons/issue", claim(3), "33333333333333333333333333333333", "00").await, 202);
    assert_eq!(call("/coupons/issue", claim(4), "no trace", "01").await, 202);

    expect_trace(&collector, CLAIM, ["POST /coupons/issue", "claims", "notifications", "coupon.issued"]).await;
    expect_trace(&collector, ORDER, ["POST /orders", "orders", "data-platform", "order.created"]).await;
    let issued = "SELECT COUNT(*) FROM user_coupons";
    eventually("all are issued", LIMIT, async || environment.count(issued).await == 3).await;
    eventually("all are notified", LIMIT, async || collector.webhooks.lock().expect("webhooks").len() == 4).await;
    stopping.cancel();
    working.await.expect("the worker ended");
    traces.end().await;
    let spans = collector.spans.lock().expect("spans").clone();
    let mut by_trace: BTreeMap<String, u32> = BTreeMap::new();
    for (_, span) in &spans {
        *by_trace.entry(hexadecimal(&span.trace_id)).or_default() += 1;
    }
    assert_eq!((by_trace.remove(CLAIM), by_trace.remove(ORDER)), (Some(3), Some(3)));
    assert_eq!(by_trace.values().sum::<u32>(), 2, "beside them only the batches: {by_trace:?}");
    environment.end().await;
}

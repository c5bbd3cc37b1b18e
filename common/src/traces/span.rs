use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
    },
};
use opentelemetry_sdk::trace::Span;
use serde::Deserialize;

use super::{TRACING, Tracing};
use crate::domain::trace_context::{TraceContext, TraceParent};

impl Tracing {
    /// None once the export has ended: such a span has no id.
    fn begin(&self, builder: SpanBuilder, parent: Option<TraceContext>) -> Option<Span> {
        let context = Context::new();
        let context = match parent {
            Some(parent) => context.with_remote_span_context(span_context(parent)),
            None => context,
        };
        Some(self.tracer.build_with_context(builder, &context)).filter(|span| span.span_context().is_valid())
    }
}

fn span_context(context: TraceContext) -> SpanContext {
    let TraceContext { trace_id, span_id } = context;
    let (trace_id, span_id) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::NONE)
}

fn context_of(span: &Span) -> TraceContext {
    let context = span.span_context();
    TraceContext { trace_id: context.trace_id().to_bytes(), span_id: context.span_id().to_bytes() }
}

/// The span of a call, from its head to its response.
// Boxed: a request holds it until its response, and most have none.
pub struct RequestSpan(Box<Span>);

impl RequestSpan {
    /// None when the call is not sampled. `traceparent` is the caller's; `method` is one of few words, and `route` that of
    /// the document, such as `/orders/{orderId}`: what a client invents must not be kept.
    pub fn begin(traceparent: Option<&str>, method: &'static str, route: Option<&str>) -> Option<Self> {
        let tracing = TRACING.get()?;
        // As the specification says, one that cannot be read counts as none.
        let given = traceparent.and_then(|text| text.parse().ok());
        if !tracing.samples(given) {
            return None;
        }
        let parent = match given {
            Some(TraceParent::Sampled(parent)) => Some(parent),
            _ => None,
        };
        let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        tracing.begin(builder, parent).map(|span| Self(Box::new(span)))
    }

    pub fn context(&self) -> TraceContext {
        context_of(&self.0)
    }

    /// The id by which logs name the request.
    pub fn set_request_id(&mut self, id: &str) {
        self.0.set_attribute(KeyValue::new("dibs.request_id", id.to_owned()));
    }

    /// Without it, as when the caller goes away, the span has no status.
    pub fn end(mut self, status: u16) {
        let span = &mut self.0;
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// The spans of a batch of a worker: one of the batch, which links to the requests that its entries come from, and one
/// in the trace of each request, which links to the batch.
pub struct BatchSpans {
    tracing: &'static Tracing,
    name: &'static str,
    batch: Span,
    requests: Vec<TraceContext>,
    began: SystemTime,
}

impl BatchSpans {
    /// None when none of its requests is sampled.
    pub fn begin(name: &'static str, requests: impl FnOnce() -> Vec<TraceContext>) -> Option<Self> {
        let tracing = TRACING.get()?;
        let requests = requests();
        if requests.is_empty() {
            return None;
        }
        let links = requests.iter().map(|request| Link::with_context(span_context(*request))).collect();
        let batch = SpanBuilder::from_name(format!("{name} batch"))
            .with_kind(SpanKind::Consumer)
            .with_links(links)
            .with_attributes([KeyValue::new("messaging.destination.name", name)]);
        // By the machine's clock, as all spans, also where a process has another.
        let began = opentelemetry::time::now();
        Some(Self { tracing, name, batch: tracing.begin(batch, None)?, requests, began })
    }

    /// After the outcomes are durable.
    pub fn end(mut self) {
        let batch = Link::with_context(self.batch.span_context().clone());
        for request in self.requests {
            let one = SpanBuilder::from_name(format!("{} process", self.name))
                .with_kind(SpanKind::Consumer)
                .with_start_time(self.began)
                .with_links(vec![batch.clone()])
                .with_attributes([KeyValue::new("messaging.destination.name", self.name)]);
            if let Some(mut span) = self.tracing.begin(one, Some(request)) {
                span.end();
            }
        }
        self.batch.end();
    }

    /// The attempt has failed, for a fault of the batch or of one entry: the entries come again, in another batch.
    pub fn fail(self, cause: &str) {
        end(self.batch, Some(cause));
    }
}

fn end(mut span: Span, failure: Option<&str>) {
    if let Some(failure) = failure {
        span.set_status(Status::error(failure.to_owned()));
    }
    span.end();
}

/// A message of a webhook, as far as it is read here.
#[derive(Deserialize)]
struct Traced {
    traceparent: Option<TraceContext>,
}

/// The span of one attempt to deliver a webhook.
pub struct WebhookSpan(Span);

impl WebhookSpan {
    /// None when the request that the message comes from is not sampled. `message` is its JSON.
    pub fn begin(sink: &'static str, kind: &str, id: &str, message: &str) -> Option<Self> {
        let tracing = TRACING.get()?;
        // Parsed again: a message of the retry queue is text, and may be of another process.
        let Traced { traceparent } = serde_json::from_str(message).ok()?;
        let builder = SpanBuilder::from_name(format!("{sink} send")).with_kind(SpanKind::Client).with_attributes([
            KeyValue::new("messaging.destination.name", sink),
            KeyValue::new("messaging.message.id", id.to_owned()),
            KeyValue::new("dibs.event_type", kind.to_owned()),
        ]);
        tracing.begin(builder, Some(traceparent?)).map(Self)
    }

    pub fn context(&self) -> TraceContext {
        context_of(&self.0)
    }

    pub fn end(self, failure: Option<&str>) {
        end(self.0, failure);
    }
}

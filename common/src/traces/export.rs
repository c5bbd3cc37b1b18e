use std::{fmt, time::Duration};

use metrics::counter;
use opentelemetry::{Context, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
    },
};
use tokio::time::Instant;

use super::{LAST_EXPORT_TIMEOUT, TRACING, TraceSettings, Tracing};
use crate::error::{Error, Result};

/// Spans that wait to be exported; more are dropped: some 8 MB.
const MAX_QUEUED_SPANS: usize = 8_192;
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Claims of a batch that its span links to.
const MAX_LINKS: u32 = 512;

/// The export of spans, which a process ends when it ends.
pub struct TraceExport(Option<SdkTracerProvider>);

impl TraceExport {
    /// Begins to export the spans of this process, `service`; nothing without an endpoint.
    pub fn start(settings: &TraceSettings, service: &'static str) -> Result<Self> {
        let Some(url) = settings.url()? else { return Ok(Self(None)) };
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            // Without its words: they may repeat the URL.
            .map_err(|_| Error::Setting("OTEL_EXPORTER_OTLP_ENDPOINT", "no client for it can be made".into()))?;
        let batches =
            BatchConfigBuilder::default().with_max_queue_size(MAX_QUEUED_SPANS).with_scheduled_delay(EXPORT_INTERVAL);
        let processor =
            BatchSpanProcessor::builder(CountedExporter(exporter)).with_batch_config(batches.build()).build();
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(CountedProcessor(processor))
            // What is not sampled never becomes a span.
            .with_sampler(Sampler::AlwaysOn)
            .with_max_links_per_span(MAX_LINKS)
            .with_resource(resource.build())
            .build();
        let sampled_share = settings.share()?;
        let tracing =
            Tracing { tracer: provider.tracer("dibs"), sampled_share, began: Instant::now(), budget: 0.into() };
        TRACING.set(tracing).map_err(|_| Error::internal("traces were started twice"))?;
        Ok(Self(Some(provider)))
    }

    /// Exports the last spans.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        // It waits for its own thread.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_EXPORT_TIMEOUT)).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "the last spans were not exported");
        }
    }
}

/// Counts what ends: what is neither exported nor failed was dropped at the full queue.
#[derive(Debug)]
struct CountedProcessor(BatchSpanProcessor);

impl SpanProcessor for CountedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        counter!("dibs_trace_spans_total", "outcome" => "ended").increment(1);
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// Counts what is exported, and says when nothing is: the library's own words would come at every attempt, as errors.
struct CountedExporter(OtlpExporter);

impl fmt::Debug for CountedExporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CountedExporter")
    }
}

impl SpanExporter for CountedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let exported = self.0.export(batch).await;
        let outcome = if exported.is_ok() { "exported" } else { "failed" };
        counter!("dibs_trace_spans_total", "outcome" => outcome).increment(spans);
        if let Err(error) = &exported {
            tracing::debug!(spans, %error, "spans were not exported");
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

//! Traces by OTLP: a sampled request, what the worker does because of it, and the webhooks about that.
//!
//! Off unless an endpoint is set; then a request costs one look at a variable. The rest of Dibs knows
//! [`TraceContext`](crate::domain::trace_context::TraceContext)s, which travel in stream entries, commands and events, and the few spans that are begun here. The library is known to
//! this module alone.

mod export;
mod settings;
mod span;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use export::TraceExport;
use opentelemetry_sdk::trace::SdkTracer;
pub use settings::TraceSettings;
pub use span::{BatchSpans, RequestSpan, WebhookSpan};
use tokio::time::Instant;

use crate::domain::trace_context::TraceParent;

/// Requests that a process records in a second. Callers decide whether theirs are sampled, and must not decide what that
/// costs.
const MAX_REQUESTS_PER_SECOND: u64 = 1_000;

struct Tracing {
    tracer: SdkTracer,
    /// Of the requests that come without a trace, the share that is recorded: 0 to 1.
    sampled_share: f64,
    began: Instant,
    /// The current second since `began` (upper 32 bits), and the requests recorded in it.
    budget: AtomicU64,
}

static TRACING: OnceLock<Tracing> = OnceLock::new();

pub fn is_on() -> bool {
    TRACING.get().is_some()
}

impl Tracing {
    /// Whether a request is recorded: as its caller's trace is, else by chance.
    fn samples(&self, given: Option<TraceParent>) -> bool {
        let is_sampled = match given {
            Some(TraceParent::Sampled(_)) => true,
            Some(TraceParent::NotSampled) => false,
            None => fastrand::f64() < self.sampled_share,
        };
        is_sampled && self.has_room()
    }

    fn has_room(&self) -> bool {
        let second = self.began.elapsed().as_secs() << 32;
        let spend = |spent: u64| Some(if spent >= second { spent + 1 } else { second + 1 });
        let before = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).unwrap_or(0);
        before < second + MAX_REQUESTS_PER_SECOND
    }
}

/// How long the end of a process waits for its last spans to be exported.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

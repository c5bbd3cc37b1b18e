//! Delivers events to receivers by HTTP: [`WebhookSink`] turns events into messages and sends each until it is
//! accepted.
//!
//! A round takes new messages from the outbox and due ones from the retry queue, and sends some tens at once; the
//! messages of one ordering key, which is an order, one after the other. The result of each is written in the
//! transaction that advances the sink:
//!
//! - accepted: nothing but the progress;
//! - refused for good: a dead letter with the response;
//! - failed: it joins the retry queue, and so do those behind it with the same ordering key, now and later. The others
//!   go on. It is sent again after a delay, for a day since the first attempt; then it is a dead letter.
//!
//! The retry queue is bounded: when it is full, the sink stops where it is, and the outbox keeps the rest. When several
//! new messages in a row get no response, the circuit opens ([`circuit_breaker`]): no further message joins the retry
//! queue or is dead-lettered, and one message at a time probes the receiver. When the circuit closes, the messages of
//! the retry queue are tried for a day again. Dead letters to redrive join the retry queue too, with ordering keys of
//! their own, and take at most half of it.
//!
//! A worker that dies in a round has written nothing of it. All of it comes again, with the same ids.

mod circuit_breaker;
mod new_messages;
mod outgoing;
mod retry;
mod round;
mod settings;
mod sink;
mod test_message;

pub use retry::{RETRIED_FOR, retry_delay};
pub use settings::{WebhookSettings, Webhooks};
pub use sink::{Limits, WebhookSink};
pub(crate) use test_message::send_tests;

//! Tells receivers by HTTP what happened: [`WebhookSink`] turns events into messages and sends each until it is taken.
//!
//! A round takes messages from the outbox and those parked ones that are due, and sends some tens at once; the messages
//! of one lane, which is an order, one after the other. What becomes of each is written in the transaction that moves
//! the sink on:
//!
//! - taken: nothing but the progress;
//! - refused for good: a dead letter with the answer;
//! - failed: it is parked, and so are those behind it in its lane, now and later. The rest goes on. It is sent again
//!   after a pause, for a day since the first attempt; then it is a dead letter.
//!
//! So many may be parked and no more: at the bound the sink stops where it is, and the outbox keeps the rest. When
//! nobody answers one new message after the other, the receiver is away ([`breaker`]): nothing more is parked or given
//! up, and one message at a time is sent to see whether it is back. Then what is parked is tried for a day anew. Dead
//! letters that somebody asked for are parked again, behind nothing but each other, in at most half of the room.
//!
//! A worker that dies in a round has written nothing of it, and all of it comes again, with the same ids.

mod backoff;
mod breaker;
mod outgoing;
mod round;
mod round_result;
mod settings;
mod sink;

pub use backoff::{TRIED_FOR, pause_after};
pub use settings::{WebhookSettings, Webhooks};
pub use sink::{Limits, WebhookSink};

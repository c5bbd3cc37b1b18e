//! Callers of this process that wait for the outcome of a claim or a command.
//!
//! The worker publishes an outcome on the channel of the process that accepted the claim or command. Pub/sub may lose a
//! message, so one task for each kind also asks MySQL, for all that have waited for a second at once. Callers never ask
//! by themselves: the load on MySQL does not grow with their number.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dibs_common::{
    db::Database,
    error::Result,
    identifiers::new_uuid,
    redis::{Redis, Subscription},
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};
use futures::FutureExt as _;
use metrics::counter;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How often MySQL is asked, and how long a caller has waited before it is asked for its outcome.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(1);
/// Outcomes that one look-up asks for. Where more are waited for, they take turns.
const LOOK_UP_BATCH_SIZE: usize = 1_000;
/// How long a look-up may take.
pub const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// An outcome that the worker publishes and MySQL keeps.
pub trait AwaitedOutcome: Clone + Send + 'static {
    type Id: Copy + Eq + Hash + Send + Sync;
    /// What a caller waits for, with all that the look-up has to know of it.
    type Subject: Clone + Send + Sync;
    /// The value of the label `kind` in metrics.
    const KIND: &'static str;

    fn id(subject: &Self::Subject) -> Self::Id;

    fn decode_all(message: &[u8]) -> impl Iterator<Item = (Self::Id, Self)>;

    /// The outcomes that MySQL holds of these subjects.
    fn look_up(
        database: &Database,
        subjects: &[Self::Subject],
    ) -> impl Future<Output = Result<Vec<(Self::Id, Self)>>> + Send;
}

/// All callers of this process that wait for outcomes of one kind.
pub struct OutcomeWaiters<T: AwaitedOutcome> {
    channel: String,
    max_callers: usize,
    state: Mutex<State<T>>,
}

struct State<T: AwaitedOutcome> {
    /// Callers that wait, or have their outcome and have not gone on yet.
    callers: usize,
    awaited: HashMap<T::Id, Awaited<T>>,
}

struct Awaited<T: AwaitedOutcome> {
    subject: T::Subject,
    look_up_at: Instant,
    callers: Vec<oneshot::Sender<T>>,
}

impl<T: AwaitedOutcome> OutcomeWaiters<T> {
    /// Subscribes to a channel of its own and begins to look up. At most `max_callers` may wait at once.
    pub async fn start(
        database: &Database,
        redis: &Redis,
        supervisor: &Supervisor,
        max_callers: usize,
    ) -> Result<Arc<Self>> {
        let channel = redis.keys.reply_channel(new_uuid());
        // Subscribed before the first call is served, so that its outcome is not missed.
        let mut subscription = Some(redis.subscribe(&channel).await?);
        let waiters = Arc::new(Self::new(channel, max_callers));
        // Until shutdown: calls wait for their outcomes during the drain, too.
        let (listening, redis) = (Arc::clone(&waiters), redis.clone());
        supervisor.spawn(Task::new(format!("{}_outcome_listener", T::KIND), Lifetime::UntilShutdown, move || {
            let (waiters, redis, subscribed) = (Arc::clone(&listening), redis.clone(), subscription.take());
            async move {
                let messages = match subscribed {
                    Some(messages) => messages,
                    // A run after the first subscribes itself. What was published in between is found by the look-up.
                    None => redis.subscribe(&waiters.channel).await?,
                };
                listen(&waiters, messages).await;
                Ok(())
            }
        }));
        let (looking, database) = (Arc::clone(&waiters), database.clone());
        supervisor.spawn(Task::new(format!("{}_outcome_look_up", T::KIND), Lifetime::UntilShutdown, move || {
            look_up(Arc::clone(&looking), database.clone()).map(Ok)
        }));
        Ok(waiters)
    }

    fn new(channel: String, max_callers: usize) -> Self {
        Self { channel, max_callers, state: Mutex::new(State { callers: 0, awaited: HashMap::new() }) }
    }

    /// The channel, as entries of the stream name it.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Registers a caller. Register before the claim or command is sent: its outcome may be published at once. None
    /// when as many wait as may, so that callers that wait leave room for all other calls.
    pub fn register(self: &Arc<Self>, subject: T::Subject) -> Option<OutcomeWaiter<T>> {
        let id = T::id(&subject);
        // Outside the lock, which every caller of the process takes.
        let (caller, outcome) = oneshot::channel();
        let mut state = self.state();
        if state.callers >= self.max_callers {
            return None;
        }
        state.callers += 1;
        let look_up_at = Instant::now() + LOOK_UP_INTERVAL;
        let awaited = state.awaited.entry(id);
        // Callers of one id share an entry, as repeats of a request wait for the same outcome.
        awaited.or_insert_with(|| Awaited { subject, look_up_at, callers: Vec::new() }).callers.push(caller);
        drop(state);
        Some(OutcomeWaiter { waiters: Arc::clone(self), id, outcome })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, outcomes: impl IntoIterator<Item = (T::Id, T)>) {
        // Decoded before the lock is taken: callers of the hot path take it as well.
        let outcomes: Vec<(T::Id, T)> = outcomes.into_iter().collect();
        let mut state = self.state();
        for (id, outcome) in outcomes {
            let callers = state.awaited.remove(&id).map(|awaited| awaited.callers);
            for caller in callers.into_iter().flatten() {
                // It may have gone away meanwhile.
                let _gone = caller.send(outcome.clone());
            }
        }
    }

    /// The subjects to look up now. Those that were looked up least recently come first, so that all have their turn.
    fn take_due(&self) -> Vec<T::Subject> {
        let now = Instant::now();
        let state = self.state();
        let due = state.awaited.iter().filter(|(_, awaited)| awaited.look_up_at <= now);
        let mut due: Vec<(Instant, T::Id)> = due.map(|(id, awaited)| (awaited.look_up_at, *id)).collect();
        // Sorted without the lock.
        drop(state);
        due.sort_unstable_by_key(|(look_up_at, _)| *look_up_at);
        due.truncate(LOOK_UP_BATCH_SIZE);
        let mut state = self.state();
        let taken = due.into_iter().filter_map(|(_, id)| {
            let awaited = state.awaited.get_mut(&id)?;
            // Moved before the answer: a failed look-up is retried a second later, not at once.
            awaited.look_up_at = now + LOOK_UP_INTERVAL;
            Some(awaited.subject.clone())
        });
        taken.collect()
    }

    /// Asks MySQL once for what has waited long enough, if anything has.
    async fn look_up_due(&self, database: &Database) {
        let due = self.take_due();
        if due.is_empty() {
            return;
        }
        counter!("dibs_outcome_look_ups_total", "kind" => T::KIND).increment(1);
        match T::look_up(database, &due).await {
            Ok(outcomes) => {
                counter!("dibs_outcomes_looked_up_total", "kind" => T::KIND).increment(outcomes.len() as u64);
                self.notify(outcomes);
            }
            Err(error) => tracing::warn!(kind = T::KIND, cause = error.chain(), "outcome look-up failed; retrying"),
        }
    }
}

async fn listen<T: AwaitedOutcome>(waiters: &OutcomeWaiters<T>, mut messages: Subscription) {
    while let Some(message) = messages.next().await {
        waiters.notify(T::decode_all(&message));
    }
}

async fn look_up<T: AwaitedOutcome>(waiters: Arc<OutcomeWaiters<T>>, database: Database) {
    // Until shutdown, not until the process stops accepting: calls wait for their outcomes during the drain, too.
    let shutdown = CancellationToken::new();
    let mut rounds = retry::every(LOOK_UP_INTERVAL, &shutdown);
    while rounds.next().await {
        waiters.look_up_due(&database).await;
    }
}

/// Waits for one outcome, until it is dropped.
pub struct OutcomeWaiter<T: AwaitedOutcome> {
    waiters: Arc<OutcomeWaiters<T>>,
    id: T::Id,
    outcome: oneshot::Receiver<T>,
}

impl<T: AwaitedOutcome> OutcomeWaiter<T> {
    /// The outcome; none when there is none by then.
    pub async fn outcome(mut self, deadline: Instant) -> Option<T> {
        timeout_at(deadline, &mut self.outcome).await.ok()?.ok()
    }
}

impl<T: AwaitedOutcome> Drop for OutcomeWaiter<T> {
    fn drop(&mut self) {
        // So that this caller counts as gone.
        self.outcome.close();
        let mut state = self.waiters.state();
        state.callers -= 1;
        if let Some(awaited) = state.awaited.get_mut(&self.id) {
            awaited.callers.retain(|caller| !caller.is_closed());
            if awaited.callers.is_empty() {
                state.awaited.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures::future::join_all;

    use super::*;

    /// A number; each look-up notes which it asked for, and finds none but those that are multiples of 1,000.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Number(u32);

    type LookUps = Arc<Mutex<Vec<Vec<u32>>>>;

    impl AwaitedOutcome for Number {
        type Id = u32;
        type Subject = (u32, LookUps);
        const KIND: &'static str = "number";

        fn id(subject: &Self::Subject) -> u32 {
            subject.0
        }

        fn decode_all(message: &[u8]) -> impl Iterator<Item = (u32, Self)> {
            message.iter().map(|byte| (u32::from(*byte), Self(u32::from(*byte))))
        }

        async fn look_up(_: &Database, subjects: &[Self::Subject]) -> Result<Vec<(u32, Self)>> {
            let numbers: Vec<u32> = subjects.iter().map(|subject| subject.0).collect();
            let found = numbers.iter().filter(|number| *number % 1_000 == 0);
            let found = found.map(|number| (*number, Self(*number))).collect();
            subjects[0].1.lock().expect("look-ups").push(numbers);
            Ok(found)
        }
    }

    /// Waiters that look up but hear no messages.
    fn waiters(max_callers: usize) -> (Arc<OutcomeWaiters<Number>>, LookUps) {
        let waiters = Arc::new(OutcomeWaiters::new("channel".into(), max_callers));
        // Connects when it is used, which it is not.
        let database = Database::new(&"mysql://unused/unused".into(), 1).expect("a pool");
        tokio::spawn(look_up(Arc::clone(&waiters), database));
        (waiters, LookUps::default())
    }

    /// Lets callers 1 to `callers` wait for 10 s; the numbers that were asked for, look-up by look-up.
    async fn look_ups_of(callers: u32) -> Vec<Vec<u32>> {
        let (waiters, look_ups) = waiters(10_000);
        let deadline = Instant::now() + Duration::from_secs(10);
        let waiting = (1..=callers).map(|number| {
            let waiter = waiters.register((number, Arc::clone(&look_ups))).expect("below the limit");
            waiter.outcome(deadline)
        });
        for (number, outcome) in (1..).zip(join_all(waiting.collect::<Vec<_>>()).await) {
            assert_eq!(outcome, (number % 1_000 == 0).then_some(Number(number)));
        }
        assert_eq!(waiters.state().callers, 0);
        assert!(waiters.state().awaited.is_empty());
        let look_ups = look_ups.lock().expect("look-ups");
        look_ups.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn look_ups_do_not_grow_with_the_number_of_callers() {
        let of_one = look_ups_of(1).await.len();
        assert!((8..=10).contains(&of_one), "{of_one} in 10 s");
        for callers in [300, 5_000] {
            // The last interval ends together with the callers' wait, so one more or less.
            assert!(look_ups_of(callers).await.len().abs_diff(of_one) <= 1, "{callers} callers");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_callers_than_a_look_up_asks_for_take_turns() {
        let look_ups = look_ups_of(2_500).await;
        assert!(look_ups.iter().all(|numbers| numbers.len() <= LOOK_UP_BATCH_SIZE));
        for round in look_ups.chunks_exact(3) {
            let asked: HashSet<u32> = round.iter().flatten().copied().collect();
            // Found ones are not asked for again.
            assert!(asked.len() >= 2_498, "{} in three look-ups", asked.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_ends_the_wait_of_every_caller_of_its_id_without_a_look_up() {
        let (waiters, look_ups) = waiters(10);
        let deadline = Instant::now() + Duration::from_secs(10);
        let waiting: Vec<_> = [7, 7, 8].map(|number| waiters.register((number, Arc::clone(&look_ups)))).into();
        waiters.notify(Number::decode_all(&[7, 8, 9]));
        let outcomes = join_all(waiting.into_iter().flatten().map(|waiter| waiter.outcome(deadline))).await;
        assert_eq!(outcomes, [7, 7, 8].map(|number| Some(Number(number))));
        assert_eq!(look_ups.lock().expect("look-ups").len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_above_the_limit_do_not_wait_until_another_has_gone() {
        let (waiters, look_ups) = waiters(2);
        let register = |number| waiters.register((number, Arc::clone(&look_ups)));
        let (first, _second) = (register(1).expect("one"), register(1).expect("two"));
        assert!(register(2).is_none());
        drop(first);
        assert_eq!(waiters.state().awaited[&1].callers.len(), 1);
        assert!(register(2).is_some());
    }
}

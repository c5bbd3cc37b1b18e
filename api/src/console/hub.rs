//! One reading a second for all browsers that watch, and none while there is none.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use askama::Template;
use bytes::Bytes;
use chrono_tz::Tz;
use dibs_common::{
    clock::{self, Timestamp},
    db::Database,
    error::{Dependency, Error, Result},
    redis::Redis,
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};
use tokio::{
    sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    delivery::DeliveryLive,
    now::NowLive,
    snapshot::{Reader, Snapshot},
    words::{Language, Words},
};

const INTERVAL: Duration = Duration::from_secs(1);
/// Streams of events at once, of a process.
const MAX_STREAMS: usize = 200;
/// A reading that is older is not shown.
const MAX_AGE: chrono::TimeDelta = chrono::TimeDelta::milliseconds(2_500);
const FIRST_READING_TIMEOUT: Duration = Duration::from_secs(5);

/// What moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Now,
    Delivery,
}

/// A reading, and what was rendered of it.
pub struct Frame {
    pub snapshot: Snapshot,
    /// When the reading was complete: without a server that takes a while.
    read_at: Timestamp,
    events: [OnceLock<Bytes>; 4],
}

impl Frame {
    fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, read_at: clock::now(), events: Default::default() }
    }

    /// The event of a view in a language, rendered for the first browser that needs it.
    pub fn event(&self, view: View, language: Language) -> Bytes {
        let place = usize::from(view == View::Delivery) * 2 + usize::from(language == Language::Korean);
        self.events[place].get_or_init(|| self.render(view, language)).clone()
    }

    fn render(&self, view: View, language: Language) -> Bytes {
        let words = Words { language, zone: self.snapshot.zone, now: self.snapshot.at };
        let rendered = match view {
            View::Now => NowLive { s: &words, n: &self.snapshot }.render(),
            View::Delivery => DeliveryLive { s: &words, n: &self.snapshot }.render(),
        };
        let html = rendered.unwrap_or_else(|error| {
            tracing::error!(%error, "live part of the console not rendered");
            String::new()
        });
        // Each line of an event begins with its field.
        let lines: Vec<&str> = html.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        format!("event: live\ndata: {}\n\n", lines.join("\ndata: ")).into()
    }
}

pub struct Hub {
    frames: watch::Receiver<Option<Arc<Frame>>>,
    watched: Arc<Notify>,
    places: Arc<Semaphore>,
}

impl Hub {
    /// Begins to read while a browser watches, until the process stops.
    pub fn start(database: &Database, redis: &Redis, zone: Tz, supervisor: &Supervisor) -> Self {
        let (tx, frames) = watch::channel(None);
        let watched = Arc::new(Notify::new());
        let reader = Arc::new(Mutex::new(Reader::new(database, redis, zone)));
        let refresh = Refresh { tx, reader, watched: Arc::clone(&watched), stopping: supervisor.stopping.clone() };
        supervisor.spawn(Task::new("console_refresh", Lifetime::UntilStopping, move || refresh.clone().run()));
        Self { frames, watched, places: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }

    /// Watches: readings come as long as the receiver lives.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Frame>>> {
        let frames = self.frames.clone();
        self.watched.notify_one();
        frames
    }

    /// A place for a stream of events; none when all are taken.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// The reading of this second.
    pub async fn current(&self) -> Result<Arc<Frame>> {
        let mut frames = self.watch();
        let is_fresh =
            |frame: &Option<Arc<Frame>>| frame.as_ref().is_some_and(|frame| clock::now() - frame.read_at < MAX_AGE);
        let fresh = timeout(FIRST_READING_TIMEOUT, frames.wait_for(is_fresh)).await;
        let fresh = fresh.map_err(|elapsed| Error::unavailable(Dependency::Redis, elapsed))?;
        let fresh = fresh.map_err(|ended| Error::unavailable(Dependency::Redis, ended))?;
        fresh.clone().ok_or_else(|| Error::internal("a fresh reading is missing"))
    }
}

/// The task behind the hub.
#[derive(Clone)]
struct Refresh {
    tx: watch::Sender<Option<Arc<Frame>>>,
    reader: Arc<Mutex<Reader>>,
    watched: Arc<Notify>,
    stopping: CancellationToken,
}

impl Refresh {
    async fn run(self) -> Result<()> {
        let mut reader = self.reader.lock().await;
        let mut rounds = retry::every(INTERVAL, &self.stopping);
        while rounds.next().await {
            // The hub itself has a receiver.
            if self.tx.receiver_count() <= 1 {
                tokio::select! {
                    () = self.watched.notified() => {}
                    () = self.stopping.cancelled() => break,
                }
                reader.forget();
            }
            let frame = Frame::new(reader.read().await);
            self.tx.send_replace(Some(Arc::new(frame)));
        }
        Ok(())
    }
}

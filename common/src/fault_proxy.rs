//! A proxy before a server that cuts, silences and freezes connections on demand.
//!
//! It knows no protocol. MySQL and Redis answer what they are asked, so a message is all that one side of a connection
//! sends until the other side sends something.

use std::{
    io::{Error, ErrorKind, Result},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};

/// How long a server may take to begin with its answer to a message after which the connection is cut.
const ANSWER_LIMIT: Duration = Duration::from_millis(300);
/// Bytes of a message in its description.
const DESCRIBED_BYTES: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Open,
    /// Connections break, and new ones are refused.
    Shut,
    /// Nothing passes.
    Silent,
}

/// What happens to the connection of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// The message is lost with its connection.
    CutBefore,
    /// The message arrives, and a server has executed it. Its connection is cut before an answer.
    CutAfter,
    /// The message arrives late.
    Freeze(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// The message that a fault has struck.
#[derive(Clone, Debug)]
pub struct Struck {
    /// Its direction, and its printable beginning.
    pub message: String,
    /// When the fault is over. A frozen message arrives then.
    pub until: Instant,
}

/// The messages since a fault was planned, and the fault.
#[derive(Default)]
struct Messages {
    count: u64,
    planned: Option<(u64, MessageFault)>,
    struck: Option<Struck>,
}

/// A proxy before a server. While it is shut it breaks its connections and refuses new ones, like a server that is
/// unreachable.
#[derive(Clone)]
pub struct FaultProxy(Arc<Shared>);

struct Shared {
    server: String,
    network: watch::Sender<Network>,
    forgotten: watch::Sender<u64>,
    refused: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    messages: Mutex<Messages>,
    /// What is next sent without getting its answer.
    unanswered: Mutex<Option<&'static str>>,
}

impl FaultProxy {
    /// A proxy before the server of `url`, and the URL that leads through it.
    pub async fn before(url: &str) -> Result<(Self, String)> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not a URL"))?;
        let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
        let (user, server) =
            authority.rsplit_once('@').map_or((String::new(), authority), |(u, s)| (format!("{u}@"), s));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("{scheme}://{user}{}{path}", listener.local_addr()?);
        let proxy = Self(Arc::new(Shared {
            server: server.to_owned(),
            network: watch::channel(Network::Open).0,
            forgotten: watch::channel(0).0,
            refused: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            messages: Mutex::default(),
            unanswered: Mutex::default(),
        }));
        tokio::spawn(proxy.clone().accept(listener));
        Ok((proxy, url))
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            // Accepted before it is refused, so that attempts can be counted; the drop closes it at once.
            if *self.0.network.borrow() == Network::Shut {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
            } else {
                tokio::spawn(Arc::clone(&self.0).carry(client));
            }
        }
    }

    /// Connections that were refused while it was shut: attempts that failed.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Messages of clients so far: about one a statement.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Messages of the server so far.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// The network forgets the connections through it: nothing passes any more, and neither end hears of it. New ones
    /// work.
    pub fn forget(&self) {
        self.0.forgotten.send_modify(|times| *times += 1);
    }

    /// The next message of a client that contains `text` reaches the server. Instead of the answer, the client finds
    /// its connection broken. Works without TLS only.
    pub fn lose_answer_to(&self, text: &'static str) {
        *self.0.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    pub fn shut(&self) {
        self.0.network.send_replace(Network::Shut);
    }

    /// Nothing passes until it is open again; then everything that was held back does.
    pub fn silence(&self) {
        self.0.network.send_replace(Network::Silent);
    }

    pub fn open(&self) {
        self.0.network.send_replace(Network::Open);
    }

    /// Plans a fault at one message, in either direction. The next message has the number 1.
    pub fn plan(&self, number: u64, fault: MessageFault) {
        *self.0.messages() = Messages { planned: Some((number, fault)), ..Messages::default() };
    }

    /// What the planned fault struck; none while its message has not come.
    pub fn struck(&self) -> Option<Struck> {
        self.0.messages().struck.clone()
    }
}

impl Shared {
    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes one connection on until it ends or is cut.
    async fn carry(self: Arc<Self>, client: TcpStream) {
        let (mut network, mut forgotten) = (self.network.subscribe(), self.forgotten.subscribe());
        // Only what is forgotten from now on concerns this connection.
        forgotten.mark_unchanged();
        let passed = async {
            let server = TcpStream::connect(&self.server).await?;
            // The proxy must add no delay of its own: small messages would wait for an acknowledgement.
            server.set_nodelay(true)?;
            client.set_nodelay(true)?;
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let connection = Connection { shared: &self, speaker: Mutex::new(None), is_doomed: AtomicBool::new(false) };
            tokio::try_join!(
                connection.pass(Side::Client, from_client, to_server),
                connection.pass(Side::Server, from_server, to_client)
            )
        };
        tokio::pin!(passed);
        // Whatever ends the wait drops both halves, which breaks the connection at both ends.
        let is_forgotten = tokio::select! {
            _ended = &mut passed => false,
            Ok(()) = forgotten.changed() => true,
            _shut = network.wait_for(|network| *network == Network::Shut) => false,
        };
        if is_forgotten {
            // Both ends stay open, and hear nothing.
            std::future::pending::<()>().await;
        }
    }

    /// Counts a message; returns the fault that is planned for it.
    fn count(&self, side: Side, message: &[u8]) -> Option<MessageFault> {
        let counter = if side == Side::Client { &self.sent } else { &self.received };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut messages = self.messages();
        // Both directions count: a fault strikes an answer as well as a statement.
        messages.count += 1;
        let count = messages.count;
        let (_, fault) = messages.planned.take_if(|(number, _)| *number == count)?;
        let duration = match fault {
            MessageFault::CutBefore => Duration::ZERO,
            MessageFault::CutAfter => ANSWER_LIMIT,
            MessageFault::Freeze(duration) => duration,
        };
        messages.struck = Some(Struck { message: describe(side, message), until: Instant::now() + duration });
        Some(fault)
    }

    /// Whether these bytes are the message whose answer is to be lost; only the first such message is.
    fn takes_unanswered(&self, bytes: &[u8]) -> bool {
        let mut text = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        let is_found = text.is_some_and(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        is_found && text.take().is_some()
    }
}

/// The direction and the printable beginning of a message.
fn describe(side: Side, message: &[u8]) -> String {
    let printable = |byte: u8| if byte.is_ascii_graphic() { char::from(byte) } else { ' ' };
    let text: String = message.iter().take(DESCRIBED_BYTES).copied().map(printable).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} {text}", if side == Side::Client { "->" } else { "<-" })
}

struct Connection<'p> {
    shared: &'p Shared,
    /// The side that sent the current message.
    speaker: Mutex<Option<Side>>,
    /// Cut before the server's next byte.
    is_doomed: AtomicBool,
}

impl Connection<'_> {
    /// Passes on what one side sends, until its end.
    async fn pass(&self, side: Side, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<()> {
        let mut network = self.shared.network.subscribe();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            let message = &buffer[..length];
            if side == Side::Server && self.is_doomed.load(Ordering::Relaxed) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            if side == Side::Client && self.shared.takes_unanswered(message) {
                self.is_doomed.store(true, Ordering::Relaxed);
            }
            if network.wait_for(|network| *network != Network::Silent).await.is_err() {
                return Ok(());
            }
            match self.fault(side, message) {
                Some(MessageFault::CutBefore) => return Err(ErrorKind::ConnectionAborted.into()),
                Some(MessageFault::CutAfter) => {
                    self.is_doomed.store(true, Ordering::Relaxed);
                    to.write_all(message).await?;
                    if side == Side::Client {
                        // The server has executed the message when it begins to answer. The other direction cuts then.
                        sleep(ANSWER_LIMIT).await;
                    }
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                Some(MessageFault::Freeze(duration)) => sleep(duration).await,
                None => {}
            }
            to.write_all(message).await?;
        }
    }

    /// The fault of these bytes, if they begin a message that has one.
    fn fault(&self, side: Side, message: &[u8]) -> Option<MessageFault> {
        let before = self.speaker.lock().unwrap_or_else(PoisonError::into_inner).replace(side);
        if before == Some(side) { None } else { self.shared.count(side, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the next one, and a client of it through a proxy.
    async fn echo() -> (FaultProxy, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("echo://{}/x", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = connection.read_u8().await {
                        let _sent = connection.write_u8(byte + 1).await;
                    }
                });
            }
        });
        FaultProxy::before(&url).await.expect("a proxy")
    }

    async fn connect(url: &str) -> TcpStream {
        let address = url.trim_start_matches("echo://").trim_end_matches("/x");
        TcpStream::connect(address).await.expect("connected")
    }

    async fn ask(connection: &mut TcpStream, byte: u8) -> Option<u8> {
        connection.write_u8(byte).await.ok()?;
        connection.read_u8().await.ok()
    }

    #[tokio::test]
    async fn messages_are_counted_in_both_directions_and_each_can_be_cut() {
        let (proxy, url) = echo().await;
        for (number, fault, answers, struck) in [
            (3, MessageFault::CutBefore, 1, "-> c"),
            (3, MessageFault::CutAfter, 1, "-> c"),
            (2, MessageFault::CutBefore, 0, "<- b"),
            (2, MessageFault::CutAfter, 1, "<- b"),
        ] {
            proxy.plan(number, fault);
            let mut connection = connect(&url).await;
            let mut answered = 0;
            for byte in [b'a', b'c', b'e'] {
                answered += u64::from(ask(&mut connection, byte).await == Some(byte + 1));
            }
            let message = proxy.struck().expect("struck").message;
            assert_eq!((answered, &*message), (answers, struck), "{fault:?} at {number}");
        }
        assert!(proxy.sent() >= 6 && proxy.received() >= 4);
        proxy.plan(9, MessageFault::CutBefore);
        assert_eq!(ask(&mut connect(&url).await, 1).await, Some(2));
        assert!(proxy.struck().is_none());
    }

    #[tokio::test]
    async fn a_frozen_message_and_a_silent_network_go_on_with_what_was_held_back() {
        let (proxy, url) = echo().await;
        let mut connection = connect(&url).await;
        proxy.plan(1, MessageFault::Freeze(Duration::from_millis(50)));
        let began = Instant::now();
        assert_eq!(ask(&mut connection, 1).await, Some(2));
        assert!(began.elapsed() >= Duration::from_millis(50));
        proxy.silence();
        let (answer, ()) = tokio::join!(ask(&mut connection, 5), async {
            sleep(Duration::from_millis(50)).await;
            proxy.open();
        });
        assert_eq!(answer, Some(6));
        proxy.shut();
        assert_eq!(ask(&mut connection, 1).await, None);
    }
}

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A proxy before a server. While it is shut it breaks its connections and refuses new ones, like a server that is
/// unreachable.
pub struct FaultProxy {
    open: Arc<watch::Sender<bool>>,
    forgotten: Arc<watch::Sender<u64>>,
    refused: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    /// What is next sent without getting its answer.
    unanswered: Arc<Mutex<Option<&'static str>>>,
}

impl FaultProxy {
    /// A proxy before the server of `url`, and the URL that leads through it.
    pub async fn before(url: &str) -> (Self, String) {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
        let (user, server) =
            authority.rsplit_once('@').map_or((String::new(), authority), |(u, s)| (format!("{u}@"), s));
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (open, _) = watch::channel(true);
        let open = Arc::new(open);
        let forgotten = Arc::new(watch::channel(0).0);
        let forgetting = Arc::clone(&forgotten);
        let watched = Arc::clone(&open);
        let (refused, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count_refused, count_sent) = (Arc::clone(&refused), Arc::clone(&sent));
        let unanswered = Arc::new(Mutex::new(None));
        let losing = Arc::clone(&unanswered);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut shut = watched.subscribe();
                if !*shut.borrow() {
                    count_refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let (server, count_sent, losing) = (server.clone(), Arc::clone(&count_sent), Arc::clone(&losing));
                let mut forgotten = forgetting.subscribe();
                forgotten.mark_unchanged();
                tokio::spawn(async move {
                    let passed = async {
                        let server = TcpStream::connect(server).await?;
                        server.set_nodelay(true)?;
                        client.set_nodelay(true)?;
                        let (from_client, to_client) = client.into_split();
                        let (from_server, to_server) = server.into_split();
                        let is_lost = AtomicBool::new(false);
                        let sending = pass(from_client, to_server, |bytes| {
                            count_sent.fetch_add(1, Ordering::Relaxed);
                            is_lost.fetch_or(takes_unanswered(&losing, bytes), Ordering::Relaxed);
                            true
                        });
                        let answering = pass(from_server, to_client, |_| !is_lost.load(Ordering::Relaxed));
                        tokio::try_join!(sending, answering)
                    };
                    tokio::pin!(passed);
                    let is_forgotten = tokio::select! {
                        _ended = &mut passed => false,
                        Ok(()) = forgotten.changed() => true,
                        _shut = shut.wait_for(|open| !open) => false,
                    };
                    if is_forgotten {
                        // Both ends stay open, and hear nothing.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        (Self { open, forgotten, refused, sent, unanswered }, format!("{scheme}://{user}{address}{path}"))
    }

    /// Connections that were refused while it was shut: attempts that failed.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How often clients have sent something so far: about once a statement.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The network forgets the connections through it: nothing passes any more, and neither end hears of it. New ones work.
    pub fn forget(&self) {
        self.forgotten.send_modify(|times| *times += 1);
    }

    /// The next message of a client that contains `text` reaches the server. Instead of the answer, the client finds its
    /// connection broken. Works without TLS only.
    pub fn lose_answer_to(&self, text: &'static str) {
        *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

/// Whether `bytes` are the message whose answer is to be lost; only the first such message is.
fn takes_unanswered(unanswered: &Mutex<Option<&'static str>>, bytes: &[u8]) -> bool {
    let mut text = unanswered.lock().unwrap_or_else(PoisonError::into_inner);
    let is_found = text.is_some_and(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()));
    is_found && text.take().is_some()
}

/// Passes on what is read until the end of it, or until `allows` refuses some.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    allows: impl Fn(&[u8]) -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        if !allows(&buffer[..length]) {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

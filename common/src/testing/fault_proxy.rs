use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A gate on the way to a server: shut, it breaks the connections through it and refuses new ones, as when the
/// server is gone.
pub struct FaultProxy {
    open: Arc<watch::Sender<bool>>,
    refused: Arc<AtomicU64>,
}

impl FaultProxy {
    /// A gate before the server of `url`, and the URL that leads through it.
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
        let watched = Arc::clone(&open);
        let refused = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&refused);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut shut = watched.subscribe();
                if !*shut.borrow() {
                    counted.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let server = server.clone();
                tokio::spawn(async move {
                    let passed = async {
                        let (mut client, mut server) = (client, TcpStream::connect(server).await?);
                        server.set_nodelay(true)?;
                        client.set_nodelay(true)?;
                        copy_bidirectional(&mut client, &mut server).await
                    };
                    tokio::select! {
                        _ended = passed => {}
                        _shut = shut.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        (Self { open, refused }, format!("{scheme}://{user}{address}{path}"))
    }

    /// Connections that were refused while it was shut: attempts that failed.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The server is gone.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// The server is back.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

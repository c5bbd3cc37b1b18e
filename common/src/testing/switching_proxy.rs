use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A port of this machine that leads to another, and later to yet another, as the address of a managed server does.
/// Connections stay where they are.
pub struct SwitchingProxy {
    pub port: u16,
    target: Arc<AtomicU16>,
    serving: JoinHandle<()>,
}

impl SwitchingProxy {
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let target = Arc::new(AtomicU16::new(target));
        let leads_to = Arc::clone(&target);
        let serving = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = leads_to.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    // A server that is gone closes the connection of its client.
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await {
                        let _ended = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { port, target, serving }
    }

    /// New connections lead there.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
    }
}

impl Drop for SwitchingProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

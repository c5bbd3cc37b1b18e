//! The HTTP/1.1 server of both processes. Its limits begin with the first byte of a connection.
//!
//! A connection is idle, sends a request head, or has a request in progress. Heads and idle connections have a time
//! limit. At the bound on connections the server closes the connection that has been without a request for longest, so
//! that connections which send nothing, or send slowly, never keep a health check out.

mod connections;
mod watched;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{body::Body, http, response::Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt as _};

use self::{
    connections::{Connection, Connections, Phase, RemoveOnDrop},
    watched::Watched,
};
use crate::{
    error::{Error, Result},
    retry,
};

/// From the first byte of a request head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than proxies usually keep idle connections (60 s), so that the proxy closes first: a request on a connection
/// that the server closes at the same moment is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The server accepts again this long after the process ran out of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How many connections a server has at once, and how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub total: usize,
    /// Of one IP address.
    pub per_address: usize,
    /// From the first byte of a request head to its last.
    pub head_timeout: Duration,
    pub idle_timeout: Duration,
}

impl ConnectionLimits {
    pub const fn new(total: usize, per_address: usize) -> Self {
        Self { total, per_address, head_timeout: HEAD_TIMEOUT, idle_timeout: IDLE_TIMEOUT }
    }
}

/// The IP address at the other end of a request's connection: an extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

/// When a server stops.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Cancelled first: answers ask clients to close their connections.
    pub draining: CancellationToken,
    /// Cancelled next: the server accepts no more, and finishes the requests in progress.
    pub stopping: CancellationToken,
    /// How long requests in progress may take after that.
    pub drain_limit: Duration,
}

/// A listener at the address of a setting. Call it before the servers are connected: an address in use is reported at
/// once.
pub async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| Error::Setting(setting, format!("{address} cannot be listened on: {error}")))
}

/// Serves until [`Shutdown::stopping`] is cancelled, then for up to the drain limit.
///
/// Returns whether every request in progress was finished.
pub async fn serve<S>(listener: TcpListener, service: S, limits: ConnectionLimits, shutdown: Shutdown) -> bool
where
    S: Service<http::Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let connections = Arc::new(Connections::new(limits));
    let tracker = TaskTracker::new();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let mut is_draining = false;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                // On a dual-stack socket an IPv4 client has a mapped IPv6 address. Canonical, both forms count against
                // one bound.
                Ok((stream, address)) => (stream, address.ip().to_canonical()),
                Err(error) => {
                    // Out of file descriptors: an accept at once would fail again.
                    tracing::warn!(%error, "connection not accepted");
                    connections.make_room();
                    retry::sleep(ACCEPT_RETRY_DELAY, &shutdown.stopping).await;
                    continue;
                }
            },
            _ = sweep.tick() => {
                connections.sweep();
                continue;
            }
            () = shutdown.draining.cancelled(), if !is_draining => {
                is_draining = true;
                connections.shared.is_draining.store(true, Ordering::Relaxed);
                continue;
            }
            () = shutdown.stopping.cancelled() => break,
        };
        let (stream, address) = stream;
        // Dropping the stream closes it. There is no request yet that a response could answer.
        let Some(connection) = connections.admit(address) else { continue };
        // Responses are small. Nagle's algorithm would hold them back until the client acknowledges the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection without TCP_NODELAY");
        }
        let served = serve_connection(stream, Arc::clone(&connection), service.clone(), shutdown.clone());
        let registry = Arc::clone(&connections);
        let id = connection.id;
        let task = tracker.spawn(async move {
            // A guard, as a task that is aborted does not reach its last line.
            let _remove = RemoveOnDrop { registry, id };
            served.await;
        });
        connections.register(id, task.abort_handle());
    }
    // Before the drain: a client is refused at once and tries another instance, instead of waiting in the backlog of a
    // process that ends.
    drop(listener);
    tracker.close();
    timeout(shutdown.drain_limit, tracker.wait()).await.is_ok()
}

async fn serve_connection<S>(stream: TcpStream, connection: Arc<Connection>, service: S, shutdown: Shutdown)
where
    S: Service<http::Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let watched = Watched::new(stream, Arc::clone(&connection));
    let requests = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        connection.enter(Phase::Request);
        let (service, connection) = (service.clone(), Arc::clone(&connection));
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(PeerAddress(connection.address));
            let mut response = service.oneshot(request).await?;
            // A kept connection would carry its next request to a process that is about to end.
            if connection.shared.is_draining.load(Ordering::Relaxed) {
                response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
            }
            connection.enter(Phase::Idle);
            Ok::<_, Infallible>(response)
        }
    });
    // The builder has no timer for heads: hyper counts idle time as part of them. The sweep distinguishes the two.
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(watched), requests);
    let mut serving = pin!(serving);
    // A token of its own, as each poll of it takes the token's lock: all connections would wait for one.
    let stopping = shutdown.stopping.child_token();
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = stopping.cancelled() => {
            // Closes an idle connection now, and one with a request after its response.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::{io, net::SocketAddr};

    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

    struct Server {
        address: SocketAddr,
        draining: CancellationToken,
        stopping: CancellationToken,
        serving: tokio::task::JoinHandle<bool>,
    }

    async fn server(total: usize, per_address: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (draining, stopping) = (CancellationToken::new(), CancellationToken::new());
        let shutdown =
            Shutdown { draining: draining.clone(), stopping: stopping.clone(), drain_limit: Duration::from_secs(5) };
        let routes = Router::new().route("/", get(async || "hello"));
        let limits =
            ConnectionLimits { head_timeout: Duration::from_millis(50), ..ConnectionLimits::new(total, per_address) };
        let serving = tokio::spawn(serve(listener, routes, limits, shutdown));
        Server { address, draining, stopping, serving }
    }

    async fn exchange(stream: &mut TcpStream) -> io::Result<String> {
        stream.write_all(REQUEST).await?;
        let mut answer = vec![0; 1_024];
        let read = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    async fn connect(server: &Server) -> TcpStream {
        TcpStream::connect(server.address).await.expect("a connection")
    }

    async fn connect_and_get(server: &Server) -> TcpStream {
        let mut stream = connect(server).await;
        assert!(exchange(&mut stream).await.expect("an answer").contains("hello"));
        stream
    }

    #[tokio::test]
    async fn at_the_bound_the_longest_idle_connection_makes_room() {
        let server = server(2, 2).await;
        let mut slow = connect(&server).await;
        slow.write_all(b"GET / HT").await.expect("half a head");
        let _second = connect_and_get(&server).await;
        let _third = connect_and_get(&server).await;
        assert_eq!(slow.read(&mut [0; 8]).await.unwrap_or(0), 0, "the slow connection is closed");
    }

    #[tokio::test]
    async fn one_address_cannot_take_all_connections() {
        let server = server(10, 1).await;
        let mut first = connect_and_get(&server).await;
        let _second = connect_and_get(&server).await;
        assert_eq!(first.read(&mut [0; 8]).await.unwrap_or(0), 0, "the first connection is closed");
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_in_time_closes_the_connection_and_an_idle_one_stays() {
        let server = server(9, 9).await;
        let (mut slow, mut idle) = (connect(&server).await, connect(&server).await);
        slow.write_all(b"GET / HT").await.expect("half a head");
        let closed = timeout(Duration::from_secs(10), slow.read(&mut [0; 8])).await.expect("closed in time");
        assert_eq!(closed.unwrap_or(0), 0);
        assert!(exchange(&mut idle).await.expect("an answer").contains("hello"));
    }

    #[tokio::test]
    async fn a_draining_server_answers_and_asks_clients_to_close() {
        let server = server(9, 9).await;
        let mut stream = connect(&server).await;
        assert!(!exchange(&mut stream).await.expect("an answer").contains("connection: close"));
        server.draining.cancel();
        assert!(exchange(&mut stream).await.expect("an answer").contains("connection: close"));
        let mut new = connect(&server).await;
        assert!(exchange(&mut new).await.expect("an answer").contains("hello"), "new connections are answered");
        server.stopping.cancel();
        assert!(server.serving.await.expect("no panic"), "all requests were finished");
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}

//! The HTTP client of the bench. It is as cheap as possible, since it shares the machine with the server it measures:
//! connections are kept alive, and each client thread has a runtime of its own, so that no task moves between threads.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use dibs_common::identifiers::{CouponId, ProductId};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

use crate::{latency::Latencies, numbers::per_second};

/// The request that a client repeats.
#[derive(Clone, Copy, Debug)]
pub enum BenchRequest {
    Claim {
        coupon: CouponId,
    },
    /// One unit of one product.
    Order {
        product: ProductId,
    },
    /// The first page.
    BestSellers,
}

impl BenchRequest {
    const fn path(self) -> &'static str {
        match self {
            Self::Claim { .. } => "/coupons/issue",
            Self::Order { .. } => "/orders",
            Self::BestSellers => "/products/best-sellers",
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::BestSellers => Method::GET,
            Self::Claim { .. } | Self::Order { .. } => Method::POST,
        }
    }

    fn body(self, user: u64) -> String {
        match self {
            Self::BestSellers => String::new(),
            Self::Claim { coupon } => format!(r#"{{"userId":{user},"couponId":{coupon}}}"#),
            Self::Order { product } => {
                format!(r#"{{"userId":{user},"items":[{{"productId":{product},"quantity":1}}]}}"#)
            }
        }
    }
}

/// The server, the request, and the expected response.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub request: BenchRequest,
    /// The user of the first request. Each further request has a new user.
    pub first_user: u64,
    /// The status of every response.
    pub expected: StatusCode,
}

#[derive(Clone, Copy, Debug)]
pub struct ClientPool {
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// Threads that the connections share.
    pub threads: usize,
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub enum StopCondition {
    /// Measurement for a time, after another that is not.
    Time {
        /// Not measured.
        warm_up: Duration,
        /// Measurement.
        measured: Duration,
    },
    Requests(u64),
}

#[derive(Clone, Debug, Default)]
pub struct Measurement {
    pub responses: u64,
    pub elapsed: Duration,
    pub latencies: Latencies,
}

impl Measurement {
    /// Adds a later measurement.
    pub fn append(&mut self, later: &Self) {
        self.responses += later.responses;
        self.elapsed += later.elapsed;
        self.latencies.merge(&later.latencies);
    }

    /// Responses a second.
    pub fn rate(&self) -> f64 {
        per_second(self.responses, self.elapsed)
    }

    /// Adds the measurement of another connection at the same time.
    fn join(&mut self, other: &Self) {
        self.responses += other.responses;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies.merge(&other.latencies);
    }
}

/// The closed model: every connection sends its next request after the response to the last one.
pub async fn closed_loop(target: Target, clients: ClientPool, stop: StopCondition) -> Result<Measurement> {
    let connections = clients.connections as u64;
    on_threads(clients, move |index| async move {
        let connection = Connection::open(target).await?;
        // Interleaved ids are unique without coordination between connections.
        let users = (target.first_user + index as u64..).step_by(clients.connections);
        match stop {
            StopCondition::Time { warm_up, measured } => for_duration(connection, users, warm_up, measured).await,
            StopCondition::Requests(count) => {
                let share = count / connections + u64::from((index as u64) < count % connections);
                for_requests(connection, users, share).await
            }
        }
    })
    .await
}

async fn for_duration(
    mut connection: Connection,
    mut users: impl Iterator<Item = u64>,
    warm_up: Duration,
    measured: Duration,
) -> Result<Measurement> {
    // Each connection has its own clock; all start within a few milliseconds.
    let begin = Instant::now() + warm_up;
    let end = begin + measured;
    let mut result = Measurement { elapsed: measured, ..Measurement::default() };
    let mut sent = Instant::now();
    while sent < end {
        connection.send(users.next().unwrap_or_default()).await?;
        let received = Instant::now();
        if received >= begin && received < end {
            result.responses += 1;
            result.latencies.record(received - sent);
        }
        sent = received;
    }
    Ok(result)
}

async fn for_requests(mut connection: Connection, users: impl Iterator<Item = u64>, count: u64) -> Result<Measurement> {
    let began = Instant::now();
    let mut result = Measurement::default();
    for (user, _) in users.zip(0..count) {
        let sent = Instant::now();
        connection.send(user).await?;
        result.responses += 1;
        result.latencies.record(sent.elapsed());
    }
    result.elapsed = began.elapsed();
    Ok(result)
}

/// Runs `task` once for each connection, on the client threads, and adds up the measurements.
pub(super) async fn on_threads<F, M>(clients: ClientPool, task: M) -> Result<Measurement>
where
    F: Future<Output = Result<Measurement>> + Send + 'static,
    M: Fn(usize) -> F + Clone + Send + 'static,
{
    let mut threads = JoinSet::new();
    for thread in 0..clients.threads {
        let task = task.clone();
        // A blocking thread has no tasks of the main runtime on it.
        threads.spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("starting the runtime of a client thread")?.block_on(async move {
                let mut connections = JoinSet::new();
                (thread..clients.connections).step_by(clients.threads).for_each(|index| {
                    connections.spawn(task(index));
                });
                joined(connections).await
            })
        });
    }
    joined(threads).await
}

async fn joined(mut tasks: JoinSet<Result<Measurement>>) -> Result<Measurement> {
    let mut total = Measurement::default();
    while let Some(ended) = tasks.join_next().await {
        total.join(&ended.context("joining a client")??);
    }
    Ok(total)
}

pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
    host: HeaderValue,
}

impl Connection {
    pub(super) async fn open(target: Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await.context("connecting to the server")?;
        // A request is one small write, which Nagle's algorithm would delay.
        stream.set_nodelay(true).context("connecting to the server")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("connecting to the server")?;
        // An error of the connection also fails the request in flight.
        tokio::spawn(connection);
        let host = HeaderValue::try_from(target.address.to_string()).context("naming the host")?;
        Ok(Self { sender, target, host })
    }

    /// Sends the request of `user`. A response with another status than expected is an error.
    pub(super) async fn send(&mut self, user: u64) -> Result<()> {
        let body = self.target.request.body(user);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = self.target.request.method();
        *request.uri_mut() = Uri::from_static(self.target.request.path());
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.sender.send_request(request).await.context("sending a request")?;
        let status = response.status();
        let mut body: Incoming = response.into_body();
        if status != self.target.expected {
            let body = body.collect().await.context("reading a response")?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            bail!("expected {}, received {status}: {text}", self.target.expected);
        }
        // The body must be read to its end before the connection can send the next request.
        while let Some(frame) = body.frame().await {
            frame.context("reading a response")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        baseline::{self, BaselineArguments},
        bench::open_loop::{OpenLoad, open_loop},
        processes::free_address,
    };

    const CLIENTS: ClientPool = ClientPool { connections: 3, threads: 2 };

    async fn baseline_target(expected: StatusCode) -> Target {
        let address = free_address().expect("a free port");
        tokio::spawn(baseline::run(BaselineArguments { address }));
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        let request = BenchRequest::Claim { coupon: CouponId::try_from(1).expect("a valid id") };
        Target { address, request, first_user: 1, expected }
    }

    #[tokio::test]
    async fn both_models_send_the_requested_number() {
        let target = baseline_target(StatusCode::ACCEPTED).await;
        let counted = closed_loop(target, CLIENTS, StopCondition::Requests(100)).await.expect("responses");
        assert_eq!((counted.responses, counted.latencies.count()), (100, 100));
        let (warm_up, measured) = (Duration::from_millis(100), Duration::from_millis(200));
        let planned =
            open_loop(target, CLIENTS, OpenLoad { rate: 1000.0, warm_up, measured }).await.expect("responses");
        assert_eq!((planned.responses, planned.latencies.count()), (200, 200));
    }

    #[tokio::test]
    async fn an_unexpected_status_ends_the_measurement() {
        let target = baseline_target(StatusCode::UNPROCESSABLE_ENTITY).await;
        let failure =
            closed_loop(target, CLIENTS, StopCondition::Requests(100)).await.expect_err("a failure").to_string();
        assert!(failure.starts_with("expected 422 Unprocessable Entity, received 202 Accepted"), "{failure}");
    }

    #[test]
    fn requests_have_the_bodies_of_the_api() {
        let (coupon, product) = (CouponId::try_from(3).expect("an id"), ProductId::try_from(5).expect("an id"));
        assert_eq!(BenchRequest::Claim { coupon }.body(7), r#"{"userId":7,"couponId":3}"#);
        let order = r#"{"userId":7,"items":[{"productId":5,"quantity":1}]}"#;
        assert_eq!(BenchRequest::Order { product }.body(7), order);
        assert_eq!((BenchRequest::BestSellers.body(7).as_str(), BenchRequest::BestSellers.method()), ("", Method::GET));
    }

    #[test]
    fn measurements_add_up_in_time_or_side_by_side() {
        let of = |responses, seconds| {
            let elapsed = Duration::from_secs(seconds);
            Measurement { responses, elapsed, latencies: Latencies::default() }
        };
        let mut later = of(10, 1);
        later.append(&of(30, 3));
        assert_eq!((later.responses, later.elapsed), (40, Duration::from_secs(4)));
        assert!((later.rate() - 10.0).abs() < f64::EPSILON);
        let mut joined = of(10, 1);
        joined.join(&of(30, 3));
        assert_eq!((joined.responses, joined.elapsed), (40, Duration::from_secs(3)));
    }

    #[tokio::test]
    async fn a_server_that_does_not_listen_is_an_error() {
        let address = free_address().expect("a free port");
        let request = BenchRequest::BestSellers;
        let target = Target { address, request, first_user: 1, expected: StatusCode::OK };
        let error = closed_loop(target, CLIENTS, StopCondition::Requests(1)).await.expect_err("an error");
        assert_eq!(error.to_string(), "connecting to the server");
    }
}

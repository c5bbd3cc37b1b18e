//! The client of the measurements: as cheap as can be, since it shares the machine with what it measures.
//!
//! Connections are kept alive, requests are put together from a few parts, and each client thread has a runtime of
//! its own, so that nothing is handed from thread to thread.

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

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// A coupon of a campaign.
    Claim {
        /// Which one.
        coupon: CouponId,
    },
    /// One unit of a product.
    Order {
        /// Which one.
        product: ProductId,
    },
    /// The first page of what sold best.
    BestSellers,
}

impl Call {
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

/// Who is asked for what, and what the answer must be.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// What every call asks for.
    pub call: Call,
    /// The user of the first call; the next ones have the next ids.
    pub first_user: u64,
    /// What every call must be answered with.
    pub expected: StatusCode,
}

/// How many ask.
#[derive(Clone, Copy, Debug)]
pub struct ClientPool {
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// Threads that they share.
    pub threads: usize,
}

/// How long, or how much.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// Measured for a time, after another that is not.
    Time {
        /// Not measured.
        warm_up: Duration,
        /// Measured.
        measured: Duration,
    },
    /// So many claims.
    Count(u64),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Answers as expected.
    pub answers: u64,
    /// In that time.
    pub elapsed: Duration,
    /// Of these answers.
    pub latencies: Latencies,
}

impl Measured {
    /// Adds what was measured afterwards.
    pub fn append(&mut self, later: &Self) {
        self.answers += later.answers;
        self.elapsed += later.elapsed;
        self.latencies.merge(&later.latencies);
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        per_second(self.answers, self.elapsed)
    }

    /// Adds what another connection measured at the same time.
    fn join(&mut self, other: &Self) {
        self.answers += other.answers;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies.merge(&other.latencies);
    }
}

/// Every connection sends its next claim when it has the answer to the last: as fast as the server can.
pub async fn closed_loop(target: Target, crowd: ClientPool, extent: Extent) -> Result<Measured> {
    let connections = crowd.connections as u64;
    on_threads(crowd, move |index| async move {
        let connection = Connection::open(target).await?;
        // Unique without asking each other.
        let users = (target.first_user + index as u64..).step_by(crowd.connections);
        match extent {
            Extent::Time { warm_up, measured } => for_a_time(connection, users, warm_up, measured).await,
            Extent::Count(count) => {
                let share = count / connections + u64::from((index as u64) < count % connections);
                so_many(connection, users, share).await
            }
        }
    })
    .await
}

async fn for_a_time(
    mut connection: Connection,
    mut users: impl Iterator<Item = u64>,
    warm_up: Duration,
    measured: Duration,
) -> Result<Measured> {
    let begin = Instant::now() + warm_up;
    let end = begin + measured;
    let mut result = Measured { elapsed: measured, ..Measured::default() };
    let mut sent = Instant::now();
    while sent < end {
        connection.call(users.next().unwrap_or_default()).await?;
        let answered = Instant::now();
        if answered >= begin && answered < end {
            result.answers += 1;
            result.latencies.record(answered - sent);
        }
        sent = answered;
    }
    Ok(result)
}

async fn so_many(mut connection: Connection, users: impl Iterator<Item = u64>, count: u64) -> Result<Measured> {
    let began = Instant::now();
    let mut result = Measured::default();
    for (user, _) in users.zip(0..count) {
        let sent = Instant::now();
        connection.call(user).await?;
        result.answers += 1;
        result.latencies.record(sent.elapsed());
    }
    result.elapsed = began.elapsed();
    Ok(result)
}

/// Runs `task` once for each connection, on the threads of the crowd, and adds up what they measured.
pub(super) async fn on_threads<F, M>(crowd: ClientPool, task: M) -> Result<Measured>
where
    F: Future<Output = Result<Measured>> + Send + 'static,
    M: Fn(usize) -> F + Clone + Send + 'static,
{
    let mut threads = JoinSet::new();
    for thread in 0..crowd.threads {
        let task = task.clone();
        threads.spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("a runtime for the client")?.block_on(async move {
                let mut connections = JoinSet::new();
                (thread..crowd.connections).step_by(crowd.threads).for_each(|index| {
                    connections.spawn(task(index));
                });
                joined(connections).await
            })
        });
    }
    joined(threads).await
}

async fn joined(mut tasks: JoinSet<Result<Measured>>) -> Result<Measured> {
    let mut total = Measured::default();
    while let Some(ended) = tasks.join_next().await {
        total.join(&ended.context("a client ended")??);
    }
    Ok(total)
}

/// A kept-alive connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
    host: HeaderValue,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(target: Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await.context("connecting to the server")?;
        stream.set_nodelay(true).context("connecting to the server")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("connecting to the server")?;
        // Its errors come out of the request that they broke.
        tokio::spawn(connection);
        let host = HeaderValue::try_from(target.address.to_string()).context("naming the host")?;
        Ok(Self { sender, target, host })
    }

    /// Calls for `user`; an answer of another status than expected ends the measurement.
    pub(super) async fn call(&mut self, user: u64) -> Result<()> {
        let body = self.target.call.body(user);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = self.target.call.method();
        *request.uri_mut() = Uri::from_static(self.target.call.path());
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.sender.send_request(request).await.context("sending a call")?;
        let status = answer.status();
        let mut body: Incoming = answer.into_body();
        if status != self.target.expected {
            let body = body.collect().await.context("reading an answer")?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            bail!("expected {}, was answered {status}: {text}", self.target.expected);
        }
        while let Some(frame) = body.frame().await {
            frame.context("reading an answer")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bare::{self, BareArguments},
        bench::open_loop::open_loop,
        processes::free_address,
    };

    const CROWD: ClientPool = ClientPool { connections: 3, threads: 2 };

    async fn bare_target(expected: StatusCode) -> Target {
        let address = free_address().expect("a free port");
        tokio::spawn(bare::run(BareArguments { address }));
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        let call = Call::Claim { coupon: CouponId::try_from(1).expect("a valid id") };
        Target { address, call, first_user: 1, expected }
    }

    #[tokio::test]
    async fn as_many_claims_are_made_as_asked_for() {
        let target = bare_target(StatusCode::ACCEPTED).await;
        let counted = closed_loop(target, CROWD, Extent::Count(100)).await.expect("answers");
        assert_eq!((counted.answers, counted.latencies.count()), (100, 100));
        let (warm_up, measured) = (Duration::from_millis(100), Duration::from_millis(200));
        let planned = open_loop(target, CROWD, 1000.0, warm_up, measured).await.expect("answers");
        assert_eq!((planned.answers, planned.latencies.count()), (200, 200));
    }

    #[tokio::test]
    async fn another_answer_than_expected_ends_the_measurement() {
        let target = bare_target(StatusCode::UNPROCESSABLE_ENTITY).await;
        let failure = closed_loop(target, CROWD, Extent::Count(100)).await.expect_err("a failure").to_string();
        assert!(failure.starts_with("expected 422 Unprocessable Entity, was answered 202 Accepted"), "{failure}");
    }
}

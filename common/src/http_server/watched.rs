use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::connections::{Connection, Phase};
use crate::identifiers;

/// Statuses that hyper answers by itself to a head that it cannot parse: no service sees such a request.
const REFUSALS: [&[u8]; 3] = [b"HTTP/1.1 400 ", b"HTTP/1.1 414 ", b"HTTP/1.1 431 "];

/// A stream that notes when a request head begins, and gives hyper's own refusals a request id.
pub(super) struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
    refusal: Option<Refusal>,
}

/// A refusal of hyper with a request id, as far as it is written.
struct Refusal {
    bytes: Vec<u8>,
    written: usize,
    /// The length that hyper knows.
    original: usize,
}

impl Refusal {
    fn of(head: &[u8]) -> Option<Self> {
        let is_refusal = REFUSALS.iter().any(|status| head.starts_with(status));
        // Responses of the service have an id already.
        if !is_refusal || head.windows(12).any(|name| name.eq_ignore_ascii_case(b"x-request-id")) {
            return None;
        }
        let status_line = 2 + head.windows(2).position(|end| end == b"\r\n")?;
        let id = identifiers::new_uuid();
        tracing::debug!(request_id = %id, "request head refused");
        let header = format!("x-request-id: {id}\r\n");
        let bytes = [&head[..status_line], header.as_bytes(), &head[status_line..]].concat();
        Some(Self { bytes, written: 0, original: head.len() })
    }
}

impl Watched {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, refusal: None }
    }

    /// Writes a refusal with its id, if `head` is one.
    fn poll_refusal(&mut self, context: &mut Context<'_>, head: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() && self.connection.phase() == Phase::Head {
            self.refusal = Refusal::of(head);
        }
        let refusal = self.refusal.as_mut()?;
        while refusal.written < refusal.bytes.len() {
            match Pin::new(&mut self.stream).poll_write(context, &refusal.bytes[refusal.written..]) {
                Poll::Ready(Ok(written @ 1..)) => refusal.written += written,
                other => return Some(other),
            }
        }
        let original = refusal.original;
        self.refusal = None;
        Some(Poll::Ready(Ok(original)))
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        // hyper calls the service only after the whole head, so its first byte is seen nowhere else.
        if buffer.filled().len() > before && this.connection.phase() == Phase::Idle {
            this.connection.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(written) = this.poll_refusal(context, buffer) {
            return written;
        }
        Pin::new(&mut this.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [head] = buffers
            && let Some(written) = this.poll_refusal(context, head)
        {
            return written;
        }
        Pin::new(&mut this.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

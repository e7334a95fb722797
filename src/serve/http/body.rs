//! Bodies in both directions, watched for whose turn it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};

use super::crowd::Turn;
use super::wait::Wait;

/// A request's body, which has to move on.
pub(super) struct Arriving {
    body: Incoming,
    turn: Arc<Turn>,
    /// When it began, as [`Turn::moment`] tells.
    since: u64,
    wait: Wait,
}

impl Arriving {
    pub(super) fn new(body: Incoming, turn: Arc<Turn>, most: Duration) -> Self {
        let since = turn.moment();
        Self { body, turn, since, wait: Wait::new(most) }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let octets = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.wait.moved(octets.map_or(0, Bytes::len));
            this.turn.ours();
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        this.turn.clients_since(this.since);
        ready!(this.wait.poll(context));
        this.turn.ours();
        Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. When it is gone, the client is to ask the next thing.
pub(super) struct Answered {
    body: Body,
    turn: Arc<Turn>,
}

impl Answered {
    pub(super) fn new(body: Body, turn: Arc<Turn>) -> Self {
        Self { body, turn }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.turn.clients_since(self.turn.moment());
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

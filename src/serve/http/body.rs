//! Bodies in both directions, watched for whose turn it is; and what becomes of the rest of a request's body when it was
//! answered without being read to its end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::crowd::Turn;
use super::wait::Wait;
use crate::under_way::InHand;

/// Most of a body that is read only to keep the connection in step, in octets.
const LEAVINGS: u64 = 256 * 1024;
/// The longest that this may take: a client that has sent its body has to wait for its answer no longer than for its
/// own octets.
const LEAVINGS_TIME: Duration = Duration::from_secs(1);

/// A request's body, which has to move on.
pub(super) struct Arriving {
    body: Incoming,
    /// Whether its end was read.
    ended: bool,
    turn: Arc<Turn>,
    /// When it began, as [`Turn::moment`] tells.
    since: u64,
    wait: Wait,
}

impl Arriving {
    pub(super) fn new(body: Incoming, turn: Arc<Turn>, most: Duration) -> Self {
        let since = turn.moment();
        let ended = body.is_end_stream();
        Self { body, ended, turn, since, wait: Wait::new(most) }
    }

    /// The body for who answers the request, and for the server what they leave of it.
    pub(super) fn lent(self) -> (Body, Leavings) {
        let (back, leavings) = oneshot::channel();
        (Body::new(Lent { body: Some(self), back: Some(back) }), Leavings(leavings))
    }

    /// Reads what is left, within bounds.
    async fn drain(&mut self) {
        let mut left = LEAVINGS;
        while !self.ended && left > 0 && self.body.size_hint().lower() <= left {
            match std::future::poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await {
                Some(Ok(frame)) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64),
                Some(Err(_)) => return,
                None => {}
            }
        }
    }
}

/// A body that comes back when nobody wants more of it.
struct Lent {
    /// Always there until it is dropped.
    body: Option<Arriving>,
    back: Option<oneshot::Sender<Arriving>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Of a request that is never answered nobody waits for it.
            let _ = back.send(body);
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let body = self.get_mut().body.as_mut();
        body.map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Arriving::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Arriving::size_hint).unwrap_or_default()
    }
}

/// What was left of a request's body by who answered it.
pub(super) struct Leavings(oneshot::Receiver<Arriving>);

impl Leavings {
    /// Whether the connection can take another request: the body was read to its end, or is now, within bounds. A client
    /// that `asks` whether to send a body at all (RFC 9110 section 10.1.1) is not told to.
    pub(super) async fn over(mut self, asks: bool) -> bool {
        let Ok(mut body) = self.0.try_recv() else { return true };
        if !asks {
            // What is not there in time is not waited for.
            let _ = tokio::time::timeout(LEAVINGS_TIME, body.drain()).await;
            body.turn.ours();
        }
        body.ended
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
            this.ended = frame.is_none() || this.body.is_end_stream();
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
    _in_hand: Option<InHand>,
}

impl Answered {
    pub(super) fn new(body: Body, turn: Arc<Turn>, in_hand: Option<InHand>) -> Self {
        Self { body, turn, _in_hand: in_hand }
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

//! The HTTP server: HTTP/1.1 over TCP, with an end to its patience.
//!
//! It promises that clients that say, send or take nothing cost nobody else the service: a head, a body and an answer
//! each have to move on within their time, and when as many connections are open as may be, the one that has kept the
//! server waiting longest makes room. One that the server itself keeps waiting is never hung up on.
//!
//! While the process stops, requests that were begun are answered, and new ones are told to come again; those who run it
//! can still see how it is.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse as _;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use self::body::{Answered, Arriving};
use self::crowd::{Crowd, Turn};
use self::stream::Unstalled;
use crate::under_way::UnderWay;
use crate::web::Problem;
use crate::web::client::Peer;

mod body;
mod crowd;
mod stream;
mod wait;

/// How long connections may take to end once nothing is waited for.
const FAREWELL: Duration = Duration::from_secs(5);
/// What is answered while the process stops.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Most octets of a head, and most that are kept of what is read or to be written at a time, for each connection.
const MAX_BUFFERED: usize = 64 * 1024;
/// What the system may keep of an answer that a client has not taken. Left to itself it keeps megabytes, which would let
/// clients that take little look busy, and hundreds of them use up the memory of all connections.
const SEND_BUFFER: u32 = 128 * 1024;
/// Most connections that wait to be taken.
const BACKLOG: u32 = 1024;

/// Listens on this address.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Every connection gets what its listener has.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What clients may ask of the server's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at a time. Below the 1,024 files that Linux lets a process open unless told otherwise.
    pub connections: usize,
    /// For the head of a request, the wait on a kept connection included.
    pub head: Duration,
    /// For a body in all, and for each of its pieces; beyond it another second for each 1,024 octets.
    pub body: Duration,
    /// The same for taking an answer.
    pub answer: Duration,
    /// For as long a client is left alone though others find no room.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            grace: Duration::from_millis(500),
        }
    }
}

/// Serves until `close`; whether the process is to stop before, `under_way` knows.
pub(super) async fn serve(
    mut listener: TcpListener,
    router: Router,
    limits: Limits,
    under_way: UnderWay,
    close: CancellationToken,
) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_BUFFERED);
    let open = GracefulShutdown::new();
    let ended = CancellationToken::new();
    let _ends_them_all = ended.clone().drop_guard();
    let crowd = Crowd::new(limits);
    let mut next = async || {
        crowd.room().await;
        Listener::accept(&mut listener).await
    };
    while let Some((stream, peer)) = close.run_until_cancelled(next()).await {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let guest = crowd.enter(&ended);
        let turn = guest.turn();
        let stream: Unstalled<TcpStream> = Unstalled::new(stream, turn.clone(), limits.answer);
        let inner = TowerToHyperService::new(router.clone());
        let under_way = under_way.clone();
        let service = FromPeer { inner, peer: peer.ip(), turn, limits, under_way };
        let connection = open.watch(server.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Some(Err(error)) = guest.until_shown_out(connection).await {
                tracing::trace!(%error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(FAREWELL, open.shutdown()).await.is_err() {
        tracing::warn!("some requests were cut off");
    }
}

/// The router, told from where a request comes, and watched for whose turn it is.
#[derive(Clone)]
struct FromPeer {
    inner: TowerToHyperService<Router>,
    peer: IpAddr,
    turn: Arc<Turn>,
    limits: Limits,
    under_way: UnderWay,
}

impl Service<Request<Incoming>> for FromPeer {
    type Response = Response<Answered>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.turn.ours();
        let (turn, under_way) = (self.turn.clone(), self.under_way.clone());
        let in_hand = under_way.request();
        let refused = in_hand.is_none() && !ALWAYS.contains(&request.uri().path());
        let asks = request.headers().contains_key(header::EXPECT);
        let (head, body) = request.into_parts();
        let (body, leavings) = Arriving::new(body, self.turn.clone(), self.limits.body).lent();
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(Peer(self.peer));
        let answer = (!refused).then(|| self.inner.call(request));
        Box::pin(async move {
            let mut answer = match answer {
                Some(answer) => answer.await?,
                None => Problem::stopping().into_response(),
            };
            if !leavings.over(asks).await || under_way.is_stopping() {
                // The rest of the body would be taken for the next request; or there is to be none.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|body| Answered::new(body, turn, in_hand)))
        })
    }
}

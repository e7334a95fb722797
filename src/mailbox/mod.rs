//! The embedded mailbox: an SMTP server inside the program that keeps what it gets, and pages to look at it.
//!
//! For trying out, for the demo and for tests: it takes mail from this machine alone, delivers it to nobody, keeps the
//! newest in memory and forgets everything with the process. It shows hostile mail without running any of it: no
//! page has a script, and the HTML of a message stands in a sandboxed frame under a policy of its own.

mod api;
mod pages;
mod store;
mod view;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::is_loopback;
use crate::receiver::{self, Limits, Mail, Manners, Reply, Taker};

pub use store::Received;
use store::Store;

/// A running mailbox; cheap to clone. It stops when the last handle is dropped.
#[derive(Clone)]
pub struct Mailbox(Arc<Inner>);

struct Inner {
    addr: SocketAddr,
    store: Arc<Store>,
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Taker for Arc<Store> {
    fn recipient(&self, _: &str) -> Result<(), Reply> {
        Ok(())
    }

    async fn take(&self, mail: Mail) -> Reply {
        let id = self.add(mail.from, mail.to, mail.bytes);
        format!("250 2.0.0 kept as {id}").into()
    }
}

impl Mailbox {
    /// Starts it on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let store = Arc::new(Store::new());
        let manners = Manners {
            name: "mailbox.tidings".to_owned(),
            words: "keeps everything, delivers nothing and shows it at /mailbox",
            limits: Limits::default(),
        };
        let serving = receiver::serve(listener, Arc::clone(&store), manners, CancellationToken::new());
        let task = tokio::spawn(serving).abort_handle();
        Ok(Self(Arc::new(Inner { addr, store, task })))
    }

    /// Where it takes mail.
    pub fn smtp_addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// The same as a relay URL.
    pub fn relay_url(&self) -> String {
        format!("smtp://{}", self.0.addr)
    }

    /// What it keeps, the newest first.
    pub fn messages(&self) -> Vec<Arc<Received>> {
        self.0.store.newest_first()
    }

    /// What it keeps for this envelope recipient, the newest first. The case of letters does not matter.
    pub fn messages_to(&self, address: &str) -> Vec<Arc<Received>> {
        let address = address.to_lowercase();
        let mut messages = self.messages();
        messages.retain(|message| message.to.iter().any(|to| to.to_lowercase() == address));
        messages
    }

    /// One message, unless newer ones have pushed it out.
    pub fn find(&self, id: u64) -> Option<Arc<Received>> {
        self.0.store.find(id)
    }

    /// How many messages it ever got; a receiver that wakes with each.
    pub fn count(&self) -> watch::Receiver<u64> {
        self.0.store.count()
    }

    /// The pages, at `/mailbox`, for requests by a name of this machine alone.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let router = pages::router().merge(api::router());
        router.layer(middleware::from_fn(by_a_name_of_this_machine)).with_state(self.clone())
    }
}

/// Lets through what was asked of `localhost` or a loopback address. A page elsewhere whose name was made to lead here
/// (DNS rebinding) runs in a browser on this machine, but its requests bear its own name.
async fn by_a_name_of_this_machine(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let asked = Url::parse(&format!("http://{host}/"));
    if asked.is_ok_and(|asked| is_loopback(&asked)) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "Open the mailbox as http://localhost or http://127.0.0.1.\n")
        .into_response()
}

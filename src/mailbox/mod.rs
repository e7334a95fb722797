//! The embedded mailbox: an SMTP server inside the program that keeps what it gets, and pages to look at it.
//!
//! For trying out, for the demo and for tests: it takes mail from this machine alone, delivers it to nobody, keeps the
//! newest in memory and forgets everything with the process. It shows hostile mail without running any of it: no
//! page has a script, and the HTML of a message stands in a sandboxed frame under a policy of its own.

mod api;
mod pages;
mod receiver;
mod store;
mod view;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

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

impl Mailbox {
    /// Starts it on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let store = Arc::new(Store::new());
        let task = tokio::spawn(receiver::serve(listener, Arc::clone(&store))).abort_handle();
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

    /// The pages, at `/mailbox`.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        pages::router().merge(api::router()).with_state(self.clone())
    }
}

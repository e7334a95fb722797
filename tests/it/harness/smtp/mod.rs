//! A scripted SMTP server: a real one on a free port, that keeps every octet and misbehaves on request.
//!
//! ```ignore
//! let smtp = SmtpServer::start().await;                       // answers like a good relay
//! smtp.on(Stage::Rcpt, Act::reply(550, "5.1.1 no such user")).to("gone@example.org");
//! let gate = Gate::new();
//! smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();  // holds the answer back
//! // … settings.relay_url = smtp.url(); start sending …
//! gate.reached().await;                                       // the message lies with the relay, unanswered
//! gate.open();                                                // now it answers 250
//! let mail = smtp.wait_for(3).await;                          // the first three accepted messages
//! ```
//!
//! It keeps the order of commands: RCPT after MAIL was taken, DATA after a recipient was, MAIL in no transaction.
//!
//! An act stands in for the good answer. The oldest rule that matches stage and recipient and is not used up acts.

mod dialogue;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{eventually, wait_until};
use dialogue::Dialogue;

/// Where in a dialogue an act takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Instead of the greeting (on `smtps`: before the handshake when [`Act::HangUp`], else inside TLS).
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// After the first octets of the body were read; further ones are not read while it stalls.
    Body,
    /// After the final dot was read, instead of its answer.
    FinalDot,
    Rset,
    Quit,
}

/// What the server does instead of answering well.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this code and text.
    Reply(u16, String),
    /// Answers and hangs up.
    ReplyAndHangUp(u16, String),
    /// Hangs up without a word.
    HangUp,
    /// Waits for the gate, then does what it would have done.
    Stall(Gate),
    /// Takes so long over what it would have done.
    Late(Duration),
    /// Says nothing for ever.
    Silence,
    /// Writes these octets as the answer, whatever they are.
    Raw(Vec<u8>),
}

impl Act {
    pub(crate) fn reply(code: u16, text: &str) -> Self {
        Self::Reply(code, text.to_owned())
    }

    pub(crate) fn reply_and_hang_up(code: u16, text: &str) -> Self {
        Self::ReplyAndHangUp(code, text.to_owned())
    }

    /// The code that it answers with; 0 when it answers with what is none.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Reply(code, _) | Self::ReplyAndHangUp(code, _) => Some(*code),
            Self::Raw(octets) => {
                let digits = octets.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
                Some(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
            }
            _ => None,
        }
    }

    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Raw(bytes.into())
    }
}

/// Holds dialogues back until the test opens it; stays open then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    waiting: AtomicUsize,
    open: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Waits until a dialogue stands before the gate.
    pub(crate) async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until so many dialogues have come to the gate.
    pub(crate) async fn reached_by(&self, dialogues: usize) {
        eventually("a dialogue to reach the gate", async || (self.count() >= dialogues).then_some(())).await;
    }

    /// How many dialogues have come to it so far.
    pub(crate) fn count(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    /// Lets everyone go on.
    pub(crate) fn open(&self) {
        self.0.open.store(true, Ordering::SeqCst);
        self.0.opened.notify_waiters();
    }

    async fn wait(&self) {
        let opened = self.0.opened.notified();
        tokio::pin!(opened);
        opened.as_mut().enable();
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        if !self.0.open.load(Ordering::SeqCst) {
            opened.await;
        }
    }
}

/// How replies reach the client when several commands came at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each by itself.
    #[default]
    Each,
    /// Together, once all commands that came are answered.
    Together,
    /// One octet after the other.
    Octets,
}

/// One transaction, from MAIL on, as far as it came.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// Which connection it was on, from 0 in the order they came.
    pub(crate) connection: usize,
    /// The MAIL line's address.
    pub(crate) from: String,
    /// What followed the address in MAIL.
    pub(crate) mail_parameters: String,
    /// The RCPT line's addresses.
    pub(crate) to: Vec<String>,
    /// What followed the address in RCPT.
    pub(crate) rcpt_parameters: String,
    /// Whether the relay has taken a recipient.
    pub(crate) taken: bool,
    /// The message as sent, dots unstuffed, without the final dot.
    pub(crate) data: Vec<u8>,
    /// The octets after 354 as they came, with the final dot.
    pub(crate) raw: Vec<u8>,
    pub(crate) mail_at: Instant,
    pub(crate) data_at: Option<Instant>,
    /// When the final dot was read; none when it never came.
    pub(crate) dot_at: Option<Instant>,
    /// The code that answered the final dot; none when nothing did.
    pub(crate) answer: Option<u16>,
    /// When the transaction was answered for good: its final dot, or a refusal before it.
    pub(crate) ended_at: Option<Instant>,
}

impl Transaction {
    /// The only recipient.
    pub(crate) fn recipient(&self) -> &str {
        match &self.to[..] {
            [only] => only,
            other => panic!("one RCPT a transaction, not {}", other.len()),
        }
    }

    /// The message as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }

    /// A header field's value, unfolded; the first of that name.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let head =
            text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ").replace("\r\n\t", " ");
        head.split("\r\n").find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// The message taken apart.
    pub(crate) fn parsed(&self) -> mail_parser::Message<'_> {
        mail_parser::MessageParser::default().parse(&self.data).expect("a message")
    }
}

/// A rule under construction: narrow it by `to`, `skip`, `times`.
pub(crate) struct Rule<'a> {
    server: &'a SmtpServer,
    index: usize,
}

impl Rule<'_> {
    /// Only in transactions to this address (from RCPT on).
    pub(crate) fn to(self, address: &str) -> Self {
        self.server.state().rules[self.index].to = Some(address.to_owned());
        self
    }

    /// Only in transactions from this envelope sender.
    pub(crate) fn from(self, address: &str) -> Self {
        self.server.state().rules[self.index].from = Some(address.to_owned());
        self
    }

    /// Only from the nth match on: the first `matches` go well.
    pub(crate) fn skip(self, matches: usize) -> Self {
        self.server.state().rules[self.index].skip = matches;
        self
    }

    /// So often and no more.
    pub(crate) fn times(self, times: usize) -> Self {
        self.server.state().rules[self.index].times = times;
        self
    }

    /// Once.
    pub(crate) fn once(self) -> Self {
        self.times(1)
    }
}

#[derive(Debug)]
struct RuleState {
    stage: Stage,
    from: Option<String>,
    to: Option<String>,
    skip: usize,
    times: usize,
    act: Act,
}

#[derive(Default)]
struct State {
    rules: Vec<RuleState>,
    /// Whether the options' mood is over.
    calm: bool,
    connections: usize,
    open: HashSet<usize>,
    /// What clients said, a line each, by connection; bodies left out.
    lines: Vec<Vec<String>>,
    /// The verbs that came in one read each, by connection; a body's end is a dot.
    bursts: Vec<Vec<Vec<String>>>,
    transactions: Vec<Transaction>,
}

/// What a relay does by itself at a stage of a transaction to these addresses, where no rule says otherwise.
pub(crate) type Mood = Arc<dyn Fn(Stage, &[String]) -> Option<Act> + Send + Sync>;

/// How the server speaks.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// What EHLO offers, besides STARTTLS where there is TLS.
    pub(crate) extensions: Vec<&'static str>,
    /// Hangs up after so many accepted messages on a connection.
    pub(crate) close_after: Option<usize>,
    /// How replies go out.
    pub(crate) pace: Pace,
    /// Answers 354 to DATA although no recipient was taken, and 554 to the message then.
    pub(crate) data_for_nobody: bool,
    /// TLS from the first octet.
    pub(crate) tls: Option<TlsAcceptor>,
    /// STARTTLS.
    pub(crate) starttls: Option<TlsAcceptor>,
    /// What it does by itself, until it is to behave.
    pub(crate) mood: Option<Mood>,
    /// Hangs up on a client that says nothing for so long.
    pub(crate) patience: Option<Duration>,
}

/// The server; dropping it hangs up on everyone and frees the port.
pub(crate) struct SmtpServer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    options: Options,
    tasks: Vec<AbortHandle>,
    /// Ends the listening of the newest task.
    away: CancellationToken,
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Takes connections until it is to be away; those it has taken go on.
async fn listen(listener: TcpListener, state: Arc<Mutex<State>>, options: Options, away: CancellationToken) {
    let mut dialogues = JoinSet::new();
    while let Some(Ok((tcp, _))) = away.run_until_cancelled(listener.accept()).await {
        tcp.set_nodelay(true).unwrap();
        let id = {
            let mut state = state.lock().unwrap();
            let id = state.connections;
            state.connections += 1;
            state.open.insert(id);
            state.lines.push(Vec::new());
            state.bursts.push(Vec::new());
            id
        };
        let dialogue = Dialogue::new(id, Arc::clone(&state), options.clone());
        dialogues.spawn(dialogue.run(tcp));
        while dialogues.try_join_next().is_some() {}
    }
    drop(listener);
    while dialogues.join_next().await.is_some() {}
}

impl SmtpServer {
    /// A good relay in clear text.
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// A relay that speaks so.
    pub(crate) async fn with(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let mut server = Self { addr, state, options, tasks: Vec::new(), away: CancellationToken::new() };
        server.listen_on(listener);
        server
    }

    fn listen_on(&mut self, listener: TcpListener) {
        self.away = CancellationToken::new();
        let listening = listen(listener, Arc::clone(&self.state), self.options.clone(), self.away.clone());
        self.tasks.push(tokio::spawn(listening).abort_handle());
    }

    /// Listens no more; the dialogues under way go on.
    pub(crate) async fn go_away(&self) {
        self.away.cancel();
        wait_until("a relay that is away", async || TcpStream::connect(self.addr).await.is_err()).await;
    }

    /// Listens again where it did.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.addr).await.unwrap();
        self.listen_on(listener);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// For `TIDINGS_RELAY_URL`.
    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.addr)
    }

    /// From now on does `act` at `stage`; see [`Rule`] for how to narrow it.
    pub(crate) fn on(&self, stage: Stage, act: Act) -> Rule<'_> {
        let mut state = self.state();
        state.rules.push(RuleState { stage, from: None, to: None, skip: 0, times: usize::MAX, act });
        let index = state.rules.len() - 1;
        drop(state);
        Rule { server: self, index }
    }

    /// How many acts that were to happen a number of times have not happened yet.
    pub(crate) fn acts_left(&self) -> usize {
        self.state().rules.iter().map(|rule| rule.times).filter(|times| *times != usize::MAX).sum()
    }

    /// Behaves well from now on.
    pub(crate) fn behave(&self) {
        let mut state = self.state();
        state.calm = true;
        for rule in &mut state.rules {
            rule.times = 0;
        }
    }

    /// Every transaction, in the order of MAIL.
    pub(crate) fn transactions(&self) -> Vec<Transaction> {
        self.state().transactions.clone()
    }

    /// The accepted messages (answered 250), in the order of MAIL.
    pub(crate) fn messages(&self) -> Vec<Transaction> {
        self.state().transactions.iter().filter(|t| t.answer == Some(250)).cloned().collect()
    }

    /// The accepted messages to this address.
    pub(crate) fn messages_to(&self, address: &str) -> Vec<Transaction> {
        let mut messages = self.messages();
        messages.retain(|message| message.to.iter().any(|to| to == address));
        messages
    }

    /// How many messages were accepted.
    pub(crate) fn count(&self) -> usize {
        self.state().transactions.iter().filter(|t| t.answer == Some(250)).count()
    }

    /// How many connections were ever opened.
    pub(crate) fn connections(&self) -> usize {
        self.state().connections
    }

    /// How many are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.state().open.len()
    }

    /// The newest accepted message to this address that is as `holds` says.
    pub(crate) fn newest_to(
        &self,
        address: &str,
        holds: impl Fn(&Transaction) -> bool,
    ) -> Option<Transaction> {
        let state = self.state();
        let to = |t: &&Transaction| t.answer == Some(250) && t.to.iter().any(|to| to == address);
        state.transactions.iter().rev().filter(to).find(|t| holds(t)).cloned()
    }

    /// The transactions that a client may still be at, each with what that client calls itself.
    pub(crate) fn open_transactions(&self) -> Vec<(String, Transaction)> {
        let state = self.state();
        let mut newest: HashMap<usize, &Transaction> = HashMap::new();
        for transaction in &state.transactions {
            newest.insert(transaction.connection, transaction);
        }
        let open =
            newest.into_values().filter(|t| t.ended_at.is_none() && state.open.contains(&t.connection));
        open.map(|transaction| {
            let hello =
                state.lines[transaction.connection].iter().find_map(|line| line.strip_prefix("EHLO "));
            (hello.unwrap_or_default().to_owned(), transaction.clone())
        })
        .collect()
    }

    /// What the client of a connection said, a line each, bodies left out.
    pub(crate) fn lines(&self, connection: usize) -> Vec<String> {
        self.state().lines[connection].clone()
    }

    /// The verbs of a connection that came together, in one read each; a body's end is a dot.
    pub(crate) fn bursts(&self, connection: usize) -> Vec<Vec<String>> {
        self.state().bursts[connection].clone()
    }

    /// Waits until so many messages were accepted, and gives all of them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Transaction> {
        eventually(&format!("{count} messages at the relay"), async || (self.count() >= count).then_some(()))
            .await;
        self.messages()
    }

    /// Waits until a message to this address was accepted, and gives the first.
    pub(crate) async fn wait_for_message_to(&self, address: &str) -> Transaction {
        eventually("a message to an address", async || self.messages_to(address).into_iter().next()).await
    }

    /// Waits until a transaction satisfies the condition, and gives the first.
    pub(crate) async fn wait_for_transaction(
        &self,
        what: &str,
        holds: impl Fn(&Transaction) -> bool,
    ) -> Transaction {
        eventually(what, async || self.transactions().into_iter().find(|t| holds(t))).await
    }
}

/// The act of the oldest rule that matches and is not used up.
fn due(rules: &mut [RuleState], stage: Stage, from: &str, to: &[String]) -> Option<Act> {
    for rule in rules {
        if rule.stage != stage
            || rule.times == 0
            || rule.from.as_ref().is_some_and(|address| address != from)
            || rule.to.as_ref().is_some_and(|address| !to.contains(address))
        {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        if rule.times != usize::MAX {
            rule.times -= 1;
        }
        return Some(rule.act.clone());
    }
    None
}

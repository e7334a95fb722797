//! One connection to the scripted server.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Act, Options, Pace, Stage, State, Transaction, due};

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What comes after a stage.
enum Next {
    /// Give the good answer.
    Well,
    /// An answer was given; its code, or 0 for octets that are none.
    Answered(u16),
    /// The dialogue is over.
    Over,
}

impl Next {
    fn goes_on(&self) -> bool {
        !matches!(self, Self::Over)
    }

    /// Whether the command was taken.
    fn accepts(&self) -> bool {
        matches!(self, Self::Well | Self::Answered(200..=399))
    }
}

pub(super) struct Dialogue {
    id: usize,
    state: Arc<Mutex<State>>,
    options: Options,
    /// Messages accepted on this connection.
    accepted: usize,
    /// Replies that wait for those to the other commands of their group.
    held: Vec<u8>,
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.open.remove(&self.id);
        }
    }
}

type Reader = BufReader<Box<dyn Wire>>;

impl Dialogue {
    pub(super) fn new(id: usize, state: Arc<Mutex<State>>, options: Options) -> Self {
        Self { id, state, options, accepted: 0, held: Vec::new() }
    }

    pub(super) async fn run(mut self, tcp: TcpStream) {
        let wire: Box<dyn Wire> = match &self.options.tls {
            Some(acceptor) => match acceptor.accept(tcp).await {
                Ok(tls) => Box::new(tls),
                Err(_) => return,
            },
            None => Box::new(tcp),
        };
        let mut wire = BufReader::new(wire);
        if !self.simple(&mut wire, Stage::Greeting, None, 220, "relay.test ESMTP").await.goes_on() {
            return;
        }
        let mut transaction: Option<usize> = None;
        loop {
            let mut line = Vec::new();
            if !self.listen(&mut wire, &mut line).await {
                return;
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            self.lock().lines[self.id].push(line.clone());
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            self.note(&verb);
            let next = match verb.as_str() {
                "EHLO" => self.hello(&mut wire).await,
                "STARTTLS" => match self.start_tls(wire).await {
                    Some(inner) => {
                        wire = inner;
                        Next::Well
                    }
                    None => return,
                },
                "AUTH" if line == "AUTH LOGIN" => self.log_in(&mut wire).await,
                "AUTH" => self.simple(&mut wire, Stage::Auth, None, 235, "2.7.0 welcome").await,
                "MAIL" if transaction.is_some() => self.odd(&mut wire, "503 5.5.1 nested MAIL").await,
                "MAIL" => {
                    let at = self.begin(&line);
                    let next = self.simple(&mut wire, Stage::Mail, Some(at), 250, "2.1.0 ok").await;
                    transaction = next.accepts().then_some(at);
                    next
                }
                "RCPT" => match transaction {
                    Some(at) => {
                        let (address, parameters) = argument(&line);
                        {
                            let transaction = &mut self.lock().transactions[at];
                            transaction.to.push(address);
                            transaction.rcpt_parameters = parameters;
                        }
                        let next = self.simple(&mut wire, Stage::Rcpt, Some(at), 250, "2.1.5 ok").await;
                        self.lock().transactions[at].taken |= next.accepts();
                        next
                    }
                    None => self.odd(&mut wire, "503 5.5.1 MAIL first").await,
                },
                "DATA" => match transaction {
                    Some(at) if self.options.data_for_nobody || self.lock().transactions[at].taken => {
                        let (next, over) = self.data(&mut wire, at).await;
                        transaction = transaction.filter(|_| !over);
                        next
                    }
                    Some(_) => self.odd(&mut wire, "554 5.5.1 no valid recipients").await,
                    None => self.odd(&mut wire, "503 5.5.1 MAIL first").await,
                },
                "RSET" => {
                    transaction = None;
                    self.simple(&mut wire, Stage::Rset, None, 250, "2.0.0 ok").await
                }
                "QUIT" => {
                    self.simple(&mut wire, Stage::Quit, None, 221, "2.0.0 bye").await;
                    self.let_go(&mut wire).await;
                    return;
                }
                "NOOP" => self.odd(&mut wire, "250 2.0.0 ok").await,
                _ => self.odd(&mut wire, "500 5.5.2 what?").await,
            };
            if !next.goes_on() {
                return;
            }
        }
    }

    /// Reads a line; before it has to wait for one, what is held goes out.
    async fn listen(&mut self, wire: &mut Reader, line: &mut Vec<u8>) -> bool {
        if wire.buffer().is_empty() {
            self.let_go(wire).await;
            self.lock().bursts[self.id].push(Vec::new());
        }
        matches!(self.in_time(wire.read_until(b'\n', line)).await, Ok(octets) if octets > 0)
    }

    /// Notes what came in the read at hand.
    fn note(&self, verb: &str) {
        if let Some(burst) = self.lock().bursts[self.id].last_mut() {
            burst.push(verb.to_owned());
        }
    }

    async fn let_go(&mut self, wire: &mut Reader) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            let _ = wire.write_all(&held).await;
            let _ = wire.flush().await;
        }
    }

    async fn say(&mut self, wire: &mut Reader, octets: &[u8]) {
        match self.options.pace {
            Pace::Each => {
                let _ = wire.write_all(octets).await;
                let _ = wire.flush().await;
            }
            Pace::Together => self.held.extend_from_slice(octets),
            Pace::Octets => {
                for octet in octets {
                    let _ = wire.write_all(&[*octet]).await;
                    let _ = wire.flush().await;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// A reply that no act stands in for.
    async fn odd(&mut self, wire: &mut Reader, reply: &str) -> Next {
        self.say(wire, format!("{reply}\r\n").as_bytes()).await;
        Next::Answered(reply[..3].parse().unwrap())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn begin(&self, line: &str) -> usize {
        let (from, mail_parameters) = argument(line);
        let mut state = self.lock();
        state.transactions.push(Transaction {
            connection: self.id,
            from,
            mail_parameters,
            to: Vec::new(),
            rcpt_parameters: String::new(),
            taken: false,
            data: Vec::new(),
            raw: Vec::new(),
            mail_at: Instant::now(),
            data_at: None,
            dot_at: None,
            answer: None,
            ended_at: None,
        });
        state.transactions.len() - 1
    }

    /// What a client says, unless it says nothing for too long.
    async fn in_time<T>(&self, reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match self.options.patience {
            Some(patience) => {
                let said = tokio::time::timeout(patience, reading).await;
                said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
            None => reading.await,
        }
    }

    /// Does what the rules ask for at this stage, or the mood.
    async fn act(&mut self, wire: &mut Reader, stage: Stage, transaction: Option<usize>) -> Next {
        let act = {
            let mut state = self.lock();
            let (from, to) = match transaction.map(|at| &state.transactions[at]) {
                Some(transaction) => (transaction.from.clone(), transaction.to.clone()),
                None => Default::default(),
            };
            let mood = self.options.mood.as_ref().filter(|_| !state.calm);
            match due(&mut state.rules, stage, &from, &to).or_else(|| mood?(stage, &to)) {
                Some(act) => act,
                None => return Next::Well,
            }
        };
        if let (Act::Reply(code, _) | Act::ReplyAndHangUp(code, _), Some(at)) = (&act, transaction)
            && *code >= 400
        {
            self.lock().transactions[at].ended_at = Some(Instant::now());
        }
        if let (Stage::FinalDot, Some(at), Some(code)) = (stage, transaction, act.code()) {
            // Before it is said, so that whoever hears it finds it recorded.
            self.lock().transactions[at].answer = Some(code);
        }
        match act {
            Act::Reply(code, text) => self.odd(wire, &format!("{code} {text}")).await,
            Act::ReplyAndHangUp(code, text) => {
                self.odd(wire, &format!("{code} {text}")).await;
                self.let_go(wire).await;
                let _ = wire.shutdown().await;
                Next::Over
            }
            Act::HangUp => {
                self.let_go(wire).await;
                Next::Over
            }
            Act::Stall(gate) => {
                self.let_go(wire).await;
                gate.wait().await;
                Next::Well
            }
            Act::Late(by) => {
                self.let_go(wire).await;
                tokio::time::sleep(by).await;
                Next::Well
            }
            Act::Silence => {
                self.let_go(wire).await;
                std::future::pending().await
            }
            Act::Raw(ref octets) => {
                self.say(wire, octets).await;
                Next::Answered(act.code().unwrap_or(0))
            }
        }
    }

    /// One command, one answer.
    async fn simple(
        &mut self,
        wire: &mut Reader,
        stage: Stage,
        transaction: Option<usize>,
        code: u16,
        text: &str,
    ) -> Next {
        match self.act(wire, stage, transaction).await {
            Next::Well => self.odd(wire, &format!("{code} {text}")).await,
            other => other,
        }
    }

    /// AUTH LOGIN: asks for the name and the password.
    async fn log_in(&mut self, wire: &mut Reader) -> Next {
        for prompt in ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"] {
            self.odd(wire, prompt).await;
            let mut line = Vec::new();
            if !self.listen(wire, &mut line).await {
                return Next::Over;
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lock().lines[self.id].push(line);
        }
        self.simple(wire, Stage::Auth, None, 235, "2.7.0 welcome").await
    }

    async fn hello(&mut self, wire: &mut Reader) -> Next {
        match self.act(wire, Stage::Ehlo, None).await {
            Next::Well => {}
            other => return other,
        }
        let mut lines = vec!["relay.test"];
        lines.extend(&self.options.extensions);
        if self.options.starttls.is_some() {
            lines.push("STARTTLS");
        }
        let last = lines.len() - 1;
        let mut reply = String::new();
        for (n, line) in lines.iter().enumerate() {
            reply.push_str(&format!("250{}{line}\r\n", if n == last { ' ' } else { '-' }));
        }
        self.say(wire, reply.as_bytes()).await;
        Next::Well
    }

    async fn start_tls(&mut self, mut wire: Reader) -> Option<Reader> {
        let next = self.act(&mut wire, Stage::StartTls, None).await;
        match next {
            Next::Well => _ = self.odd(&mut wire, "220 2.0.0 go ahead").await,
            Next::Answered(220) => {}
            Next::Answered(_) => return Some(wire),
            Next::Over => return None,
        }
        self.let_go(&mut wire).await;
        let acceptor = self.options.starttls.clone()?;
        let tls = acceptor.accept(wire.into_inner()).await.ok()?;
        Some(BufReader::new(Box::new(tls)))
    }

    /// DATA and what follows; and whether the transaction is over.
    async fn data(&mut self, wire: &mut Reader, at: usize) -> (Next, bool) {
        self.lock().transactions[at].data_at = Some(Instant::now());
        match self.act(wire, Stage::Data, Some(at)).await {
            Next::Well => _ = self.odd(wire, "354 go on").await,
            Next::Answered(354) => {}
            Next::Answered(code) => return (Next::Answered(code), false),
            Next::Over => return (Next::Over, true),
        }
        if wire.buffer().is_empty() {
            self.let_go(wire).await;
            self.lock().bursts[self.id].push(Vec::new());
        }
        match self.in_time(wire.fill_buf()).await {
            Ok([]) | Err(_) => return (Next::Over, true),
            Ok(_) => {}
        }
        if let Next::Over = self.act(wire, Stage::Body, Some(at)).await {
            return (Next::Over, true);
        }
        let (mut raw, mut data) = (Vec::new(), Vec::new());
        loop {
            let start = raw.len();
            match self.in_time(wire.read_until(b'\n', &mut raw)).await {
                Ok(0) | Err(_) => {
                    self.lock().transactions[at].raw = raw;
                    return (Next::Over, true);
                }
                Ok(_) => {}
            }
            match &raw[start..] {
                b".\r\n" if start == 0 || raw[..start].ends_with(b"\r\n") => break,
                [b'.', rest @ ..] if start == 0 || raw[..start].ends_with(b"\r\n") => {
                    data.extend_from_slice(rest);
                }
                line => data.extend_from_slice(line),
            }
        }
        self.note(".");
        let taken = {
            let mut state = self.lock();
            let transaction = &mut state.transactions[at];
            transaction.raw = raw;
            transaction.data = data;
            transaction.dot_at = Some(Instant::now());
            transaction.taken
        };
        if !taken {
            return (self.odd(wire, "554 5.5.1 no valid recipients").await, true);
        }
        match self.act(wire, Stage::FinalDot, Some(at)).await {
            Next::Well => {
                // Before it is said, so that whoever hears it finds it recorded.
                {
                    let taken = &mut self.lock().transactions[at];
                    (taken.answer, taken.ended_at) = (Some(250), Some(Instant::now()));
                }
                self.odd(wire, "250 2.0.0 taken").await;
                self.accepted += 1;
            }
            Next::Answered(_) => {}
            Next::Over => return (Next::Over, true),
        }
        if self.options.close_after.is_none_or(|limit| self.accepted < limit) {
            return (Next::Well, true);
        }
        self.let_go(wire).await;
        (Next::Over, true)
    }
}

/// The address between the angle brackets, and what follows them.
fn argument(line: &str) -> (String, String) {
    let after = line.split_once('<').map_or("", |(_, after)| after);
    let (address, parameters) = after.rsplit_once('>').unwrap_or((after, ""));
    (address.to_owned(), parameters.trim().to_owned())
}

//! One connection to the scripted server.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Act, Options, Stage, State, Transaction, due};

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What comes after a stage.
enum Next {
    /// Give the good answer.
    Well,
    /// An answer was given; its code, or 0 for raw octets.
    Answered(u16),
    /// The dialogue is over.
    Over,
}

pub(super) struct Dialogue {
    pub(super) id: usize,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) options: Options,
    /// Messages accepted on this connection.
    pub(super) accepted: usize,
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
    pub(super) async fn run(mut self, tcp: TcpStream) {
        let wire: Box<dyn Wire> = match &self.options.tls {
            Some(acceptor) => match acceptor.accept(tcp).await {
                Ok(tls) => Box::new(tls),
                Err(_) => return,
            },
            None => Box::new(tcp),
        };
        let mut wire = BufReader::new(wire);
        match self.act(&mut wire, Stage::Greeting, None).await {
            Next::Well => say(&mut wire, 220, "relay.test ESMTP").await,
            Next::Answered(_) => {}
            Next::Over => return,
        }
        let mut transaction: Option<usize> = None;
        loop {
            let mut line = Vec::new();
            match self.in_time(wire.read_until(b'\n', &mut line)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            self.lock().lines[self.id].push(line.clone());
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let goes_on = match verb.as_str() {
                "EHLO" => self.hello(&mut wire).await,
                "STARTTLS" => match self.start_tls(wire).await {
                    Some(inner) => {
                        wire = inner;
                        true
                    }
                    None => return,
                },
                "AUTH" => self.simple(&mut wire, Stage::Auth, None, 235, "2.7.0 welcome").await,
                "MAIL" => {
                    transaction = Some(self.begin(&line));
                    self.simple(&mut wire, Stage::Mail, transaction, 250, "2.1.0 ok").await
                }
                "RCPT" => {
                    if let Some(at) = transaction {
                        let (address, _) = argument(&line);
                        self.lock().transactions[at].to.push(address);
                    }
                    self.simple(&mut wire, Stage::Rcpt, transaction, 250, "2.1.5 ok").await
                }
                "DATA" => match transaction.take() {
                    Some(at) => self.data(&mut wire, at).await,
                    None => {
                        say(&mut wire, 503, "5.5.1 MAIL first").await;
                        true
                    }
                },
                "RSET" => {
                    transaction = None;
                    self.simple(&mut wire, Stage::Rset, None, 250, "2.0.0 ok").await
                }
                "QUIT" => {
                    self.simple(&mut wire, Stage::Quit, None, 221, "2.0.0 bye").await;
                    false
                }
                "NOOP" => {
                    say(&mut wire, 250, "2.0.0 ok").await;
                    true
                }
                _ => {
                    say(&mut wire, 500, "5.5.2 what?").await;
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
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
    async fn act(&self, wire: &mut Reader, stage: Stage, transaction: Option<usize>) -> Next {
        let act = {
            let mut state = self.lock();
            let to = transaction.map(|at| state.transactions[at].to.clone()).unwrap_or_default();
            let mood = self.options.mood.as_ref().filter(|_| !state.calm);
            match due(&mut state.rules, stage, &to).or_else(|| mood?(stage, &to)) {
                Some(act) => act,
                None => return Next::Well,
            }
        };
        if let (Act::Reply(code, _) | Act::ReplyAndHangUp(code, _), Some(at)) = (&act, transaction)
            && *code >= 400
        {
            self.lock().transactions[at].ended_at = Some(Instant::now());
        }
        match act {
            Act::Reply(code, text) => {
                say(wire, code, &text).await;
                Next::Answered(code)
            }
            Act::ReplyAndHangUp(code, text) => {
                say(wire, code, &text).await;
                let _ = wire.shutdown().await;
                Next::Over
            }
            Act::HangUp => Next::Over,
            Act::Stall(gate) => {
                gate.wait().await;
                Next::Well
            }
            Act::Late(by) => {
                tokio::time::sleep(by).await;
                Next::Well
            }
            Act::Silence => std::future::pending().await,
            Act::Raw(bytes) => {
                let _ = wire.write_all(&bytes).await;
                let _ = wire.flush().await;
                Next::Answered(0)
            }
        }
    }

    /// One command, one answer; whether the dialogue goes on.
    async fn simple(
        &self,
        wire: &mut Reader,
        stage: Stage,
        transaction: Option<usize>,
        code: u16,
        text: &str,
    ) -> bool {
        match self.act(wire, stage, transaction).await {
            Next::Well => say(wire, code, text).await,
            Next::Answered(_) => {}
            Next::Over => return false,
        }
        true
    }

    async fn hello(&self, wire: &mut Reader) -> bool {
        match self.act(wire, Stage::Ehlo, None).await {
            Next::Well => {}
            Next::Answered(_) => return true,
            Next::Over => return false,
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
        let _ = wire.write_all(reply.as_bytes()).await;
        wire.flush().await.is_ok()
    }

    async fn start_tls(&self, mut wire: Reader) -> Option<Reader> {
        match self.act(&mut wire, Stage::StartTls, None).await {
            Next::Well => say(&mut wire, 220, "2.0.0 go ahead").await,
            // Only raw octets can have been the 220.
            Next::Answered(0) => {}
            Next::Answered(_) => return Some(wire),
            Next::Over => return None,
        }
        let acceptor = self.options.starttls.clone()?;
        let tls = acceptor.accept(wire.into_inner()).await.ok()?;
        Some(BufReader::new(Box::new(tls)))
    }

    async fn data(&mut self, wire: &mut Reader, at: usize) -> bool {
        self.lock().transactions[at].data_at = Some(Instant::now());
        match self.act(wire, Stage::Data, Some(at)).await {
            Next::Well => say(wire, 354, "go on").await,
            Next::Answered(354) => {}
            Next::Answered(_) => return true,
            Next::Over => return false,
        }
        match self.in_time(wire.fill_buf()).await {
            Ok([]) | Err(_) => return false,
            Ok(_) => {}
        }
        if let Next::Over = self.act(wire, Stage::Body, Some(at)).await {
            return false;
        }
        let (mut raw, mut data) = (Vec::new(), Vec::new());
        loop {
            let start = raw.len();
            match self.in_time(wire.read_until(b'\n', &mut raw)).await {
                Ok(0) | Err(_) => {
                    self.lock().transactions[at].raw = raw;
                    return false;
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
        {
            let mut state = self.lock();
            let transaction = &mut state.transactions[at];
            transaction.raw = raw;
            transaction.data = data;
            transaction.dot_at = Some(Instant::now());
        }
        match self.act(wire, Stage::FinalDot, Some(at)).await {
            Next::Well => {
                // Before it is said, so that whoever hears it finds it recorded.
                {
                    let taken = &mut self.lock().transactions[at];
                    (taken.answer, taken.ended_at) = (Some(250), Some(Instant::now()));
                }
                say(wire, 250, "2.0.0 taken").await;
                self.accepted += 1;
            }
            Next::Answered(code) => self.lock().transactions[at].answer = Some(code),
            Next::Over => return false,
        }
        self.options.close_after.is_none_or(|limit| self.accepted < limit)
    }
}

async fn say(wire: &mut Reader, code: u16, text: &str) {
    let _ = wire.write_all(format!("{code} {text}\r\n").as_bytes()).await;
    let _ = wire.flush().await;
}

/// The address between the angle brackets, and what follows them.
fn argument(line: &str) -> (String, String) {
    let after = line.split_once('<').map_or("", |(_, after)| after);
    let (address, parameters) = after.rsplit_once('>').unwrap_or((after, ""));
    (address.to_owned(), parameters.trim().to_owned())
}

//! Asking other servers: one question, several servers, the first good answer.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout_at};
use tombolo_dns::answer::Question;
use tombolo_dns::exchange::{Carrier, Form, Outgoing, Verdict};
use tombolo_dns::limits::{QUESTION_PATIENCE, QUESTION_RETRY};
use tombolo_dns::proto::op::{Message, ResponseCode};
use tombolo_dns::upstream::{Failure, Quirk, Step};
use tombolo_kernel::SocketKind;

use super::book::{Server, Upstreams};
use super::service::Service;
use super::stream;
use crate::limits::NAMES_ANSWER_BYTES_MAX;

/// No server gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// What became of asking one server.
type Outcome = Result<Message, Failure>;

/// What is heard of a server that is being asked.
enum News {
    /// It should have answered by now; it may still.
    Silent(Server),
    /// It is not waited for any more.
    Ended(Server, Outcome),
}

/// One question under way.
struct Exchange {
    service: Rc<Service>,
    question: Question,
    begun: Instant,
    results: UnboundedSender<News>,
    /// Servers that should answer soon.
    asked: Vec<Server>,
    /// How many are waited for, those included that have been silent for long.
    open: usize,
}

/// Asks the servers until one has answered; the next as soon as those before are slow or have failed.
pub(super) async fn ask(
    service: &Rc<Service>,
    question: &Question,
    upstreams: &Upstreams,
) -> Result<(Message, Server), NoAnswer> {
    let (results, arriving) = unbounded_channel();
    let exchange = Exchange {
        service: Rc::clone(service),
        question: question.clone(),
        begun: Instant::now(),
        results,
        asked: Vec::new(),
        open: 0,
    };
    let steps = service.plan(&upstreams.servers);
    exchange.run(steps, arriving, &upstreams.servers).await
}

impl Exchange {
    async fn run(
        mut self,
        steps: Vec<Step<Server>>,
        mut arriving: UnboundedReceiver<News>,
        preferred: &[Server],
    ) -> Result<(Message, Server), NoAnswer> {
        let deadline = self.begun + QUESTION_PATIENCE;
        let mut steps = steps.into_iter().peekable();
        // "No such name" from a server of second choice, while one of first choice may still know better.
        let mut held: Option<(Message, Server)> = None;
        loop {
            let next = steps.peek().map(|step| self.begun + step.after);
            let next = match next {
                Some(_) if self.asked.is_empty() => Some(Instant::now()),
                Some(at) => Some(at),
                None if self.asked.is_empty() && (self.open == 0 || held.is_some()) => {
                    return held.ok_or(NoAnswer);
                }
                None => None,
            };
            tokio::select! {
                Some(news) = arriving.recv() => {
                    let Some((server, message)) = self.hear(news) else { continue };
                    let doubtful = is_missing(&message) && self.is_second_choice(&server, preferred);
                    if !doubtful {
                        return Ok((message, server));
                    }
                    held.get_or_insert((message, server));
                }
                () = until(next) => {
                    if let Some(step) = steps.next() {
                        self.begin(step.server, deadline);
                    }
                }
                () = sleep_until(deadline) => return held.ok_or(NoAnswer),
            }
        }
    }

    /// What it says for the question, if that is something.
    fn hear(&mut self, news: News) -> Option<(Server, Message)> {
        let (server, outcome) = match news {
            News::Silent(server) => {
                self.forget(&server);
                return None;
            }
            News::Ended(server, outcome) => (server, outcome),
        };
        self.open -= 1;
        if !matches!(outcome, Err(Failure::Silent)) {
            self.forget(&server);
        }
        Some((server, outcome.ok()?))
    }

    fn forget(&mut self, server: &Server) {
        if let Some(place) = self.asked.iter().position(|asked| asked == server) {
            self.asked.swap_remove(place);
        }
    }

    /// Whether a server that is preferred to this one is being asked.
    fn is_second_choice(&self, server: &Server, preferred: &[Server]) -> bool {
        let before = preferred.iter().take_while(|other| *other != server);
        // One that was silent before may be asked beside the others, and is not waited for.
        let counts = |other: &&Server| !self.service.is_dead(other);
        before
            .filter(counts)
            .any(|other| self.asked.contains(other))
    }

    /// Asks a server. It goes on when another was faster, for as long as a server is given: one that never answers
    /// would look as good as one that was never asked.
    fn begin(&mut self, server: Server, deadline: Instant) {
        self.asked.push(server.clone());
        self.open += 1;
        let attempt = Attempt {
            service: Rc::clone(&self.service),
            question: self.question.clone(),
            server: server.clone(),
            deadline,
        };
        let results = self.results.clone();
        spawn_local(async move {
            let left = attempt.service.shared.until_left(&server.via);
            let outcome = tokio::select! {
                outcome = attempt.run(&results) => outcome,
                () = left => Err(Failure::Unreachable),
            };
            // Fails when another was faster.
            drop(results.send(News::Ended(server, outcome)));
        });
    }
}

/// Whether a server says that there is no such name.
pub(super) fn is_missing(message: &Message) -> bool {
    message.metadata.response_code == ResponseCode::NXDomain
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The next datagram, or what the network says instead. Most wait for long, some in vain: none takes room before
/// there is something.
async fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let take = || {
        let mut datagram = vec![0; NAMES_ANSWER_BYTES_MAX];
        let (length, _) = recv(socket, datagram.as_mut_slice(), RecvFlags::empty())?;
        datagram.truncate(length);
        Ok(datagram)
    };
    socket
        .async_io(Interest::READABLE | Interest::ERROR, take)
        .await
}

/// One question to one server.
struct Attempt {
    service: Rc<Service>,
    question: Question,
    server: Server,
    deadline: Instant,
}

impl Attempt {
    /// Asks by a datagram, and by a connection where that says too little; remembers how the server did.
    async fn run(&self, results: &UnboundedSender<News>) -> Outcome {
        let begun = Instant::now();
        let mut form = self.service.form(&self.server);
        let soon = begun + QUESTION_RETRY;
        let mut verdict = self.by_datagram(form, soon, results).await;
        if matches!(verdict, Ok(Verdict::NoEdns)) {
            self.service.found(&self.server, Quirk::Edns);
            form.edns = false;
            verdict = self.by_datagram(form, soon + QUESTION_RETRY, results).await;
        }
        // A connection is worth its while only if somebody still waits.
        if matches!(verdict, Ok(Verdict::Truncated | Verdict::OtherCase(_))) && !results.is_closed()
        {
            verdict = self.by_connection(form, verdict).await;
        }
        self.judge(verdict, begun.elapsed())
    }

    fn judge(&self, verdict: io::Result<Verdict>, took: Duration) -> Outcome {
        let failure = match verdict {
            Ok(Verdict::Answer(message)) => {
                self.service.answered(&self.server, took);
                return Ok(message);
            }
            // It says that of the name, not of itself: whoever asks for broken names must not set a server back.
            Ok(Verdict::Unwilling(ResponseCode::ServFail)) => return Err(Failure::Unwilling),
            // It will not say, or only half of the answer is known.
            Ok(_) => Failure::Unwilling,
            // It was told when it should have answered.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(Failure::Silent),
            // We could not ask: no fault of the server's.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                tracing::debug!(%error, "no question can be sent");
                return Err(Failure::Unreachable);
            }
            Err(error) => {
                tracing::debug!(server = %self.server.address, %error, "a server cannot be asked");
                Failure::Unreachable
            }
        };
        self.service.failed(&self.server, failure);
        Err(failure)
    }

    /// A socket for this question alone: with a port of the kernel's choice, and connected, so that nobody else's
    /// datagrams arrive.
    ///
    /// A server that has not answered `soon` counts as silent, but what it says later is still heard while somebody
    /// waits for it.
    async fn by_datagram(
        &self,
        form: Form,
        soon: Instant,
        results: &UnboundedSender<News>,
    ) -> io::Result<Verdict> {
        let outgoing = self.service.outgoing(&self.question, form)?;
        let _ours = self.service.remember(&outgoing);
        let talk = async {
            let address = self.server.address;
            let socket = self.socket(SocketKind::Datagram)?;
            let socket = UdpSocket::from_std(socket.into())?;
            socket.connect(address).await?;
            socket.send(outgoing.bytes()).await?;
            loop {
                let answer = receive(&socket).await?;
                match outgoing.judge(&answer, Carrier::Datagram) {
                    // Somebody guesses, or it is late: the right one may still come.
                    Verdict::Foreign => {}
                    verdict => return Ok(verdict),
                }
            }
        };
        tokio::pin!(talk);
        if let Ok(verdict) = timeout_at(soon.min(self.deadline), &mut talk).await {
            return verdict;
        }
        self.service.failed(&self.server, Failure::Silent);
        drop(results.send(News::Silent(self.server.clone())));
        tokio::select! {
            verdict = timeout_at(self.deadline, talk) => verdict?,
            () = results.closed() => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The same over a connection, which nobody else can answer. Where the server takes none, what it said before
    /// has to do.
    async fn by_connection(&self, form: Form, before: io::Result<Verdict>) -> io::Result<Verdict> {
        let outgoing = self.service.outgoing(&self.question, form)?;
        let _ours = self.service.remember(&outgoing);
        let changes_case = matches!(before, Ok(Verdict::OtherCase(_)));
        match timeout_at(self.deadline, self.converse(&outgoing)).await {
            Ok(Ok(answer)) => {
                if changes_case && outgoing.is_case_kept(&answer) == Some(false) {
                    self.service.found(&self.server, Quirk::MixedCase);
                }
                Ok(match outgoing.judge(&answer, Carrier::Stream) {
                    Verdict::OtherCase(message) => Verdict::Answer(message),
                    verdict => verdict,
                })
            }
            Ok(Err(_)) | Err(_) => before,
        }
    }

    fn socket(&self, kind: SocketKind) -> io::Result<OwnedFd> {
        let Server { address, via } = &self.server;
        let socket = self.service.socket(via, kind, address.is_ipv6());
        socket.map_err(|error| io::Error::new(io::ErrorKind::ResourceBusy, error))
    }

    async fn converse(&self, outgoing: &Outgoing) -> io::Result<Vec<u8>> {
        let address = self.server.address;
        let socket = self.socket(SocketKind::Stream)?;
        let mut connection = TcpSocket::from_std_stream(socket.into())
            .connect(address)
            .await?;
        let mut query = Vec::new();
        stream::append(&mut query, outgoing.bytes());
        connection.write_all(&query).await?;
        let length = connection.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        connection.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

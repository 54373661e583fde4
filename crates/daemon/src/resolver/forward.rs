//! Questions that other servers have to answer: once for all who ask the same at a time, and from memory while
//! the answer holds.

use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tombolo_dns::answer::Question;
use tombolo_dns::cache::{Found, Key};
use tombolo_dns::proto::op::{Message, Query};
use tombolo_dns::upstream::Joined;

use super::book::{Asker, Server, Upstreams};
use super::service::Service;
use super::stream::{self, Outbox};
use super::upstream;

/// Somebody who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) question: Question,
    pub(super) way: Way,
}

/// How an answer gets back.
#[derive(Debug)]
pub(super) enum Way {
    /// By a datagram, as long as the socket is open: it keeps the sandbox's namespace from going.
    Datagram(Weak<UdpSocket>, SocketAddr),
    /// Over the connection that the question came in by.
    Stream(Outbox),
    /// To somebody who asked by the API.
    Call(oneshot::Sender<Told>),
}

/// An answer, and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) answer: Vec<u8>,
    /// The server that gave it, unless it was remembered or none did.
    pub(super) server: Option<SocketAddr>,
}

impl Waiter {
    fn tell(self, message: &Message, server: Option<SocketAddr>) {
        let answer = self.question.reply(message);
        self.way.send(Told { answer, server });
    }

    fn fail(self) {
        let answer = self.question.failed();
        self.way.send(Told {
            answer,
            server: None,
        });
    }
}

impl Way {
    /// Sends the answer; a client that does not take it does without.
    fn send(self, told: Told) {
        match self {
            Self::Datagram(socket, to) => {
                if let Some(socket) = socket.upgrade() {
                    drop(socket.send_to(&told.answer, to));
                }
            }
            Self::Stream(answers) => {
                let mut framed = Vec::with_capacity(told.answer.len() + 2);
                stream::append(&mut framed, &told.answer);
                answers.try_send(framed);
            }
            Self::Call(reply) => drop(reply.send(told)),
        }
    }
}

/// Answers from memory or has other servers asked.
pub(super) fn begin(service: &Rc<Service>, asker: &Asker, waiter: Waiter, loops: bool) {
    if loops {
        tracing::debug!("a question came back to us: a server forwards to where it was asked from");
        return waiter.fail();
    }
    let upstreams = service.upstreams_of(asker);
    let question = &waiter.question;
    let (dnssec_ok, unchecked) = (question.dnssec_ok(), question.checking_disabled());
    let key = Key::new(&query_of(question), dnssec_ok, unchecked, upstreams.scope);
    match service.recall(&key) {
        Some(Found::Answer(message)) => return waiter.tell(&message, None),
        Some(Found::Failed) => {
            return match service.recall_stale(&key) {
                Some(message) => waiter.tell(&message, None),
                None => waiter.fail(),
            };
        }
        None => {}
    }
    let question = waiter.question.clone();
    match service.join(key.clone(), asker.id, waiter) {
        Joined::First => {
            spawn_local(exchange(Rc::clone(service), key, question, upstreams));
        }
        Joined::Waits => {}
        Joined::Full(waiter) => waiter.fail(),
    }
}

async fn exchange(service: Rc<Service>, key: Key, question: Question, upstreams: Arc<Upstreams>) {
    let outcome = upstream::ask(&service, &question, &upstreams).await;
    match &outcome {
        // Of a server that was not the first to ask: the first may know names that it does not.
        Ok((message, server))
            if upstream::is_missing(message) && upstreams.servers.first() != Some(server) => {}
        Ok((message, _)) => service.keep(&key, Some(message)),
        Err(_) => service.keep(&key, None),
    }
    let stale = match &outcome {
        Ok(_) => None,
        Err(_) => service.recall_stale(&key),
    };
    for waiter in service.finish(&key) {
        match (&outcome, &stale) {
            (Ok((message, Server { address, .. })), _) => {
                waiter.tell(message, Some(*address));
            }
            (Err(_), Some(message)) => waiter.tell(message, None),
            (Err(_), None) => waiter.fail(),
        }
    }
}

/// What a client asks, without who asks and how.
pub(super) fn query_of(question: &Question) -> Query {
    let mut query = Query::query(question.name().clone(), question.record_type());
    query.set_query_class(question.class());
    query
}

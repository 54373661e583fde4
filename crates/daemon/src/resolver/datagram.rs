//! Questions in datagrams: taken and answered in batches.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::task::coop::consume_budget;
use tombolo_dns::answer::{Carrier, Decision, Question};
use tombolo_kernel::datagrams::{Batch, Replies};

use super::book::{Asker, Place};
use super::forward::{self, Waiter, Way};
use super::service::Service;
use crate::limits::{NAMES_BATCH, NAMES_QUERY_BYTES_MAX};
use crate::pause::Pause;

/// Room for a batch of questions and answers, used by one socket after the other.
#[derive(Debug)]
pub(super) struct Buffers {
    batch: Batch,
    replies: Replies,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            batch: Batch::new(NAMES_BATCH, NAMES_QUERY_BYTES_MAX),
            replies: Replies::new(NAMES_BATCH),
        }
    }
}

/// A question that another server has to answer.
struct Foreign {
    question: Question,
    from: SocketAddr,
    asker: Arc<Asker>,
    loops: bool,
}

/// Answers what arrives at a socket, for ever.
pub(super) async fn serve(service: Rc<Service>, place: Place, socket: Arc<UdpSocket>) {
    let mut pause = Pause::default();
    let copy = || socket.try_clone().and_then(tokio::net::UdpSocket::from_std);
    let ready = pause.until_had(copy).await;
    loop {
        if let Err(error) = ready.readable().await {
            tracing::error!(?place, %error, "names cannot be asked for any more");
            return;
        }
        let taken = ready.try_io(Interest::READABLE, || {
            match take(&service, &place, &socket)? {
                NAMES_BATCH.. => Ok(()),
                // A batch that is not full has emptied the socket: it need not be asked once more.
                _ => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        match taken {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => pause.after(&error).await,
            _ => {
                pause.reset();
                consume_budget().await;
            }
        }
    }
}

/// Takes one batch; what it asks of our own is answered when this returns.
fn take(service: &Rc<Service>, place: &Place, socket: &Arc<UdpSocket>) -> io::Result<usize> {
    let mut buffers = service.buffers.borrow_mut();
    let Buffers { batch, replies } = &mut *buffers;
    let count = batch.receive(socket)?;
    let mut foreign = Vec::new();
    {
        let book = service.shared.read();
        for (query, from) in batch.iter() {
            let Some(asker) = book.asker(place, from.ip()) else {
                continue;
            };
            match book.decide(asker, query, Carrier::Datagram, service.turn()) {
                // There is room for as many as were taken.
                Decision::Answer(answer) => drop(replies.push(&answer, from)),
                Decision::Forward(question) => foreign.push(Foreign {
                    loops: service.is_ours(query),
                    question,
                    from,
                    asker: Arc::clone(asker),
                }),
                Decision::Ignore => {}
            }
        }
    }
    // What the socket does not take is lost, as datagrams may be. It must not be left for the next socket, which is
    // somebody else's.
    let sent = replies.send(socket);
    replies.clear();
    drop(buffers);
    if let Err(error) = sent {
        tracing::debug!(?place, %error, "answers could not be sent");
    }
    for Foreign {
        question,
        from,
        asker,
        loops,
    } in foreign
    {
        let way = Way::Datagram(Arc::downgrade(socket), from);
        let waiter = Waiter { question, way };
        forward::begin(service, &asker, waiter, loops);
    }
    Ok(count)
}

//! Questions over connections (RFC 7766): many on one, answered in any order.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tombolo_dns::answer::{Carrier, Decision};

use super::book::Place;
use super::forward::{self, Waiter, Way};
use super::service::Service;
use crate::limits::{
    NAMES_CONNECTION_IDLE, NAMES_CONNECTIONS_EACH_MAX, NAMES_CONNECTIONS_MAX,
    NAMES_QUERY_BYTES_MAX, NAMES_READ_BYTES, NAMES_STALL, NAMES_WAITING_BYTES_MAX,
};
use crate::pause::Pause;

/// Takes the connections that arrive at a listener until the daemon ends, and answers what was asked over them until
/// then.
pub(super) async fn serve(
    service: Rc<Service>,
    place: Place,
    listener: Arc<std::net::TcpListener>,
) {
    let mut pause = Pause::default();
    let copy = || listener.try_clone().and_then(TcpListener::from_std);
    let listener = pause.until_had(copy).await;
    // They end with the listener: an open connection would keep the sandbox's namespace from going.
    let mut open = JoinSet::new();
    let mut shares: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        let accepted = tokio::select! {
            Some(ended) = open.join_next() => {
                let share = ended.ok().and_then(|client| shares.get_mut(&client));
                if let Some(count) = share {
                    *count -= 1;
                }
                shares.retain(|_, count| *count > 0);
                continue;
            }
            accepted = listener.accept() => accepted,
            () = service.until_ending() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                pause.reset();
                let client = client.ip();
                // At a gateway, strangers take nobody's place.
                let is_known = service.shared.read().asker(&place, client).is_some();
                let share = shares.get(&client).copied().unwrap_or_default();
                let has_room =
                    share < NAMES_CONNECTIONS_EACH_MAX && open.len() < NAMES_CONNECTIONS_MAX;
                if is_known && has_room {
                    *shares.entry(client).or_default() += 1;
                    let talk = converse(Rc::clone(&service), place.clone(), stream, client);
                    open.spawn_local(async move {
                        // A client that breaks off is nothing to tell.
                        drop(talk.await);
                        client
                    });
                }
            }
            // It was shut down, because it is about to be closed.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => pause.after(&error).await,
        }
    }
    while open.join_next().await.is_some() {}
}

async fn converse(
    service: Rc<Service>,
    place: Place,
    stream: TcpStream,
    client: IpAddr,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (answers, waiting) = outbox();
    let reading = async {
        tokio::select! {
            done = listen(&service, place, reader, client, answers) => done,
            () = service.until_ending() => Ok(()),
        }
    };
    let writing = reply(writer, waiting);
    tokio::pin!(reading, writing);
    tokio::select! {
        done = &mut writing => return done,
        // No more questions, but some may still wait for their answers.
        done = &mut reading => done?,
    }
    writing.await
}

/// Reads questions until the client has no more, says nothing for long, or says something that is none.
async fn listen(
    service: &Rc<Service>,
    place: Place,
    mut reader: OwnedReadHalf,
    client: IpAddr,
    answers: Outbox,
) -> io::Result<()> {
    let mut arrived = Vec::with_capacity(NAMES_READ_BYTES);
    let mut until = Instant::now() + NAMES_CONNECTION_IDLE;
    loop {
        let begins = arrived.is_empty();
        match timeout_at(until, reader.read_buf(&mut arrived)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
        let mut rest = &arrived[..];
        let mut own = Vec::new();
        while let Some((query, after)) = whole(rest)? {
            if !take(service, (&place, client), query, (&mut own, &answers)) {
                return Ok(());
            }
            rest = after;
            if own.len() >= NAMES_WAITING_BYTES_MAX {
                answers.send(std::mem::take(&mut own)).await?;
            }
        }
        let taken = arrived.len() - rest.len();
        arrived.drain(..taken);
        // The time for a question counts from its first byte, not from the last.
        if begins || taken > 0 {
            let longest = if arrived.is_empty() {
                NAMES_CONNECTION_IDLE
            } else {
                NAMES_STALL
            };
            until = Instant::now() + longest;
        }
        if !own.is_empty() {
            answers.send(own).await?;
        }
    }
}

/// The first message, without its length, and what follows; `None` while it is not all there.
fn whole(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > NAMES_QUERY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(rest.split_at_checked(length))
}

/// Takes one question: what we know ourselves is appended to `own`, and the rest comes by `answers`. Whether the
/// connection may go on.
fn take(
    service: &Rc<Service>,
    (place, client): (&Place, IpAddr),
    query: &[u8],
    (own, answers): (&mut Vec<u8>, &Outbox),
) -> bool {
    let (decision, asker) = {
        let book = service.shared.read();
        let Some(asker) = book.asker(place, client) else {
            return false;
        };
        let decision = book.decide(asker, query, Carrier::Stream, service.turn());
        (decision, Arc::clone(asker))
    };
    match decision {
        Decision::Answer(answer) => append(own, &answer),
        Decision::Forward(question) => {
            let loops = service.is_ours(query);
            let way = Way::Stream(answers.clone());
            forward::begin(service, &asker, Waiter { question, way }, loops);
        }
        Decision::Ignore => return false,
    }
    true
}

/// Appends an answer with its length before it.
pub(super) fn append(all: &mut Vec<u8>, answer: &[u8]) {
    // No answer is longer than a message may be.
    if let Ok(length) = u16::try_from(answer.len()) {
        all.extend(length.to_be_bytes());
        all.extend(answer);
    }
}

/// Where the answers of a connection wait for their client, as many bytes as there may be.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    sender: UnboundedSender<Vec<u8>>,
    room: Rc<Room>,
}

/// What waits.
#[derive(Debug, Default)]
struct Room {
    bytes: Cell<usize>,
    freed: Notify,
}

fn outbox() -> (Outbox, (UnboundedReceiver<Vec<u8>>, Rc<Room>)) {
    let (sender, receiver) = unbounded_channel();
    let room = Rc::<Room>::default();
    let outbox = Outbox {
        sender,
        room: Rc::clone(&room),
    };
    (outbox, (receiver, room))
}

impl Outbox {
    /// Lets answers wait, once there is room for them.
    async fn send(&self, answers: Vec<u8>) -> io::Result<()> {
        while self.room.bytes.get() >= NAMES_WAITING_BYTES_MAX {
            self.room.freed.notified().await;
        }
        self.put(answers)
    }

    /// Lets an answer wait if there is room; a client that does not take its answers does without.
    pub(super) fn try_send(&self, answer: Vec<u8>) {
        if self.room.bytes.get() < NAMES_WAITING_BYTES_MAX {
            // The client may have left.
            drop(self.put(answer));
        }
    }

    fn put(&self, answers: Vec<u8>) -> io::Result<()> {
        let bytes = &self.room.bytes;
        bytes.set(bytes.get() + answers.len());
        let sent = self.sender.send(answers);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn reply(
    mut writer: OwnedWriteHalf,
    (mut waiting, room): (UnboundedReceiver<Vec<u8>>, Rc<Room>),
) -> io::Result<()> {
    while let Some(answers) = waiting.recv().await {
        timeout(NAMES_STALL, writer.write_all(&answers)).await??;
        room.bytes.set(room.bytes.get() - answers.len());
        room.freed.notify_one();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_one_by_one() {
        let mut bytes = Vec::new();
        append(&mut bytes, b"one");
        append(&mut bytes, b"");
        append(&mut bytes, b"three");
        let (first, rest) = whole(&bytes).unwrap().unwrap();
        assert_eq!(first, b"one");
        let (second, rest) = whole(rest).unwrap().unwrap();
        assert_eq!(second, b"");
        for cut in 0..rest.len() {
            assert_eq!(whole(&rest[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(whole(rest).unwrap(), Some((&b"three"[..], &[][..])));
    }

    #[tokio::test]
    async fn answers_wait_as_far_as_there_is_room() {
        let (outbox, (mut waiting, room)) = outbox();
        let soon = std::time::Duration::from_millis(20);
        outbox.send(vec![0; NAMES_WAITING_BYTES_MAX]).await.unwrap();
        outbox.try_send(vec![1]);
        let own = outbox.send(vec![2]);
        tokio::pin!(own);
        assert!(timeout(soon, &mut own).await.is_err(), "there is room");
        let first = waiting.recv().await.unwrap();
        room.bytes.set(room.bytes.get() - first.len());
        room.freed.notify_one();
        own.await.unwrap();
        assert_eq!(waiting.recv().await, Some(vec![2]), "the other was lost");
        drop(waiting);
        assert!(outbox.send(vec![3]).await.is_err(), "the client left");
    }

    #[test]
    fn a_message_may_be_as_long_as_a_question_is() {
        let mut longest = Vec::new();
        append(&mut longest, &vec![0; NAMES_QUERY_BYTES_MAX]);
        assert!(whole(&longest).unwrap().is_some());
        let mut longer = Vec::new();
        append(&mut longer, &vec![0; NAMES_QUERY_BYTES_MAX + 1]);
        assert!(whole(&longer[..2]).is_err(), "its length says enough");
    }
}

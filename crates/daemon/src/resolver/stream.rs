//! Questions over connections (RFC 7766): many on one, answered in any order.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tombolo_dns::answer::{Carrier, Decision, decide};

use super::book::Place;
use super::forward::{self, Waiter, Way};
use super::service::Service;
use crate::limits::{
    NAMES_ANSWERS_WAITING_MAX, NAMES_CONNECTION_IDLE, NAMES_CONNECTIONS_EACH_MAX,
    NAMES_QUERY_BYTES_MAX, NAMES_READ_BYTES, NAMES_STALL,
};
use crate::pause::Pause;

/// Takes the connections that arrive at a listener until the daemon ends, and answers what was asked over them until
/// then.
pub(super) async fn serve(
    service: Rc<Service>,
    place: Place,
    listener: Arc<std::net::TcpListener>,
) {
    let listener = listener.try_clone().and_then(TcpListener::from_std);
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(?place, %error, "names cannot be asked for over connections");
            return;
        }
    };
    // They end with the listener: an open connection would keep the sandbox's namespace from going.
    let mut open = JoinSet::new();
    let mut pause = Pause::default();
    loop {
        let accepted = tokio::select! {
            Some(_ended) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
            () = service.until_ending() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                pause.reset();
                if open.len() < NAMES_CONNECTIONS_EACH_MAX {
                    open.spawn_local(converse(Rc::clone(&service), place.clone(), stream, client));
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
    client: SocketAddr,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (answers, waiting) = channel(NAMES_ANSWERS_WAITING_MAX);
    let reading = async {
        tokio::select! {
            done = listen(&service, place, reader, client.ip(), answers) => done,
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
    answers: Sender<Vec<u8>>,
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
        if !own.is_empty() && answers.send(own).await.is_err() {
            return Ok(());
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
    (own, answers): (&mut Vec<u8>, &Sender<Vec<u8>>),
) -> bool {
    let (decision, asker) = {
        let book = service.shared.read();
        let Some(asker) = book.asker(place, client) else {
            return false;
        };
        let (carrier, turn) = (Carrier::Stream, service.turn());
        let (names, settings) = (&book.names, &book.settings);
        let decision = decide(names, &asker.view, settings, query, carrier, turn);
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

async fn reply(mut writer: OwnedWriteHalf, mut waiting: Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(answers) = waiting.recv().await {
        timeout(NAMES_STALL, writer.write_all(&answers)).await??;
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

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
use tokio::time::timeout;
use tombolo_dns::answer::{Carrier, Decision, decide};

use super::book::Place;
use super::forward::{self, Waiter, Way};
use super::service::Service;
use crate::limits::{
    NAMES_ANSWERS_WAITING_MAX, NAMES_CONNECTION_IDLE, NAMES_CONNECTIONS_EACH_MAX,
    NAMES_QUERY_BYTES_MAX, NAMES_STALL,
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
    let mut query = Vec::new();
    while read(&mut reader, &mut query).await? {
        let mut loops = false;
        let (decision, asker) = {
            let book = service.shared.read();
            let Some(asker) = book.asker(&place, client) else {
                return Ok(());
            };
            let turn = service.turn();
            let decision = decide(
                &book.names,
                &asker.view,
                &book.settings,
                &query,
                Carrier::Stream,
                turn,
            );
            (decision, Arc::clone(asker))
        };
        if matches!(decision, Decision::Forward(_)) {
            loops = service.is_ours(&query);
        }
        match decision {
            Decision::Answer(answer) => {
                if answers.send(answer).await.is_err() {
                    return Ok(());
                }
            }
            Decision::Forward(question) => {
                let way = Way::Stream(answers.clone());
                forward::begin(service, &asker, Waiter { question, way }, loops);
            }
            Decision::Ignore => return Ok(()),
        }
    }
    Ok(())
}

/// Reads one message with its length before it; `false` at the end.
async fn read(reader: &mut OwnedReadHalf, message: &mut Vec<u8>) -> io::Result<bool> {
    let mut first = [0];
    match timeout(NAMES_CONNECTION_IDLE, reader.read(&mut first)).await {
        Ok(Ok(1)) => {}
        Ok(Err(error)) => return Err(error),
        _ => return Ok(false),
    }
    let rest = async {
        let mut second = [0];
        reader.read_exact(&mut second).await?;
        let length = usize::from(u16::from_be_bytes([first[0], second[0]]));
        if length > NAMES_QUERY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        message.resize(length, 0);
        reader.read_exact(message).await
    };
    timeout(NAMES_STALL, rest).await??;
    Ok(true)
}

async fn reply(mut writer: OwnedWriteHalf, mut waiting: Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(answer) = waiting.recv().await {
        let Ok(length) = u16::try_from(answer.len()) else {
            continue;
        };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(NAMES_STALL, writer.write_all(&framed)).await??;
    }
    Ok(())
}

//! Questions by the API: asked as a sandbox, or as the host, would ask them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::Instant;
use tombolo_core::id::SandboxId;
use tombolo_dns::answer::{Carrier, Decision};
use tombolo_dns::proto::op::{Message, MessageType, OpCode, Query};
use tombolo_dns::proto::rr::{Name, RecordType};

use super::forward::{self, Told, Waiter, Way};
use super::service::Service;

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Who asks; the host for none.
    pub(crate) asker: Option<SandboxId>,
    /// The name.
    pub(crate) name: Name,
    /// The type of record.
    pub(crate) kind: RecordType,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Our own names.
    Own,
    /// This server.
    Server(SocketAddr),
    /// What a server said before, or that none could be asked.
    Memory,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// As it would be sent; none if whoever was to ask does not.
    pub(crate) answer: Option<Vec<u8>>,
    pub(crate) source: Source,
    pub(crate) took: Duration,
}

/// Begins to answer.
pub(super) fn begin(service: &Rc<Service>, call: Call, reply: oneshot::Sender<Answered>) {
    let begun = Instant::now();
    let answered = move |answer, source| Answered {
        answer,
        source,
        took: begun.elapsed(),
    };
    let asker = service.shared.read().asker_of(call.asker).map(Arc::clone);
    let (Some(asker), Some(query)) = (asker, query(&call)) else {
        drop(reply.send(answered(None, Source::Own)));
        return;
    };
    let decision = (service.shared.read()).decide(&asker, &query, Carrier::Stream, service.turn());
    match decision {
        Decision::Answer(answer) => drop(reply.send(answered(Some(answer), Source::Own))),
        Decision::Ignore => drop(reply.send(answered(None, Source::Own))),
        Decision::Forward(question) => {
            let (told, hears) = oneshot::channel();
            let way = Way::Call(told);
            forward::begin(service, &asker, Waiter { question, way }, false);
            spawn_local(async move {
                let Ok(Told { answer, server }) = hears.await else {
                    return;
                };
                let source = server.map_or(Source::Memory, Source::Server);
                drop(reply.send(answered(Some(answer), source)));
            });
        }
    }
}

fn query(call: &Call) -> Option<Vec<u8>> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(call.name.clone(), call.kind));
    message.to_vec().ok()
}

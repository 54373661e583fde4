//! nf_tables by a small encoder of our own (linux/netfilter/nf_tables.h): one transaction is one message to
//! the socket and costs some ten microseconds.
//!
//! One socket is kept for the life of the process: closing one just after a removal waits for the kernel.

use std::sync::{Mutex, PoisonError};

use tombolo_netstate::object::nft::ruleset::Type;

use crate::netlink::attribute::{Message, Writer};
use crate::netlink::batch::Refusal;
use crate::netlink::socket::Protocol;
use crate::netlink::{Batch, ReadBuffer, Socket};

mod elements;
mod expression;
mod field;
pub(crate) mod foreign;
mod rules;
mod table;
pub(crate) mod user;

pub(crate) use elements::{ElementChange, change_elements, dump_elements};
pub(crate) use rules::{put_table, replace_table};
pub(crate) use table::{delete_table, dump_base_chains, is_there, read_table};

/// `NFNL_SUBSYS_NFTABLES`, as the high byte of message types.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`.
const FAMILY_INET: u8 = 1;
/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
const APPEND: u16 = 0x800;
/// Bytes of `struct nfgenmsg`.
const HEAD: usize = 4;

/// Message types (`enum nf_tables_msg_types`).
mod kind {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const GET_CHAIN: u16 = 4;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const GET_RULE: u16 = 7;
    pub(super) const DELETE_RULE: u16 = 8;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const GET_SET: u16 = 10;
    pub(super) const NEW_ELEMENT: u16 = 12;
    pub(super) const GET_ELEMENT: u16 = 13;
    pub(super) const DELETE_ELEMENT: u16 = 14;
    pub(super) const NEW_GENERATION: u16 = 15;
    pub(super) const GET_GENERATION: u16 = 16;
}

/// The socket, one user at a time.
#[derive(Debug)]
pub(crate) struct NftSocket {
    inner: Mutex<(Socket, ReadBuffer)>,
    port: u32,
}

impl NftSocket {
    /// Opens the socket in the calling thread's network namespace.
    pub(crate) fn open() -> std::io::Result<Self> {
        let socket = Socket::open(Protocol::Netfilter)?;
        socket.enlarge()?;
        let port = socket.port();
        Ok(Self {
            inner: Mutex::new((socket, ReadBuffer::new())),
            port,
        })
    }

    /// The number by which notifications name our own changes.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    fn with<T>(&self, work: impl FnOnce(&Socket, &mut ReadBuffer) -> T) -> T {
        let mut guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, buffer) = &mut *guard;
        work(socket, buffer)
    }

    /// The body of the answer of kind `answer` to a question about one thing; none when it is not there.
    fn ask(&self, (asked, answer): (u16, u16), family: u8, attributes: &Writer) -> Option<Vec<u8>> {
        let mut batch = Batch::default();
        batch.push_bytes(SUBSYSTEM << 8 | asked, 0, &request(family, attributes));
        let mut found = None;
        self.with(|socket, buffer| {
            batch.run_seeing(socket, buffer, &mut |message| {
                if message.kind == SUBSYSTEM << 8 | answer {
                    found = Some(message.body.to_vec());
                }
            })
        });
        found
    }

    /// Shows the body of each object that was asked for to `see`, which must forget what it saw at `None`.
    fn dump(
        &self,
        asked: u16,
        family: u8,
        attributes: &Writer,
        mut see: impl FnMut(Option<&[u8]>),
    ) -> std::io::Result<()> {
        let body = request(family, attributes);
        self.with(|socket, buffer| {
            socket.dump(SUBSYSTEM << 8 | asked, &body, buffer, |message| {
                see(message.map(|message| message.body));
            })
        })
    }
}

/// Requests that are carried out together or not at all.
#[derive(Debug)]
struct Transaction(Batch);

impl Transaction {
    fn new() -> Self {
        let mut batch = Batch::default();
        batch.push_bytes(
            libc::NFNL_MSG_BATCH_BEGIN as u16,
            0,
            &generic_head(0, SUBSYSTEM),
        );
        Self(batch)
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: &Writer) {
        self.push_in(FAMILY_INET, kind, flags, attributes);
    }

    /// A request about a table of that family.
    fn push_in(&mut self, family: u8, kind: u16, flags: u16, attributes: &Writer) {
        let mut body = generic_head(family, 0).to_vec();
        body.extend_from_slice(&attributes.0);
        self.0.push_bytes(SUBSYSTEM << 8 | kind, flags, &body);
    }

    /// A request about our table whose attributes are at hand.
    fn push_bytes(&mut self, kind: u16, flags: u16, attributes: &[u8]) {
        let mut body = generic_head(FAMILY_INET, 0).to_vec();
        body.extend_from_slice(attributes);
        self.0.push_bytes(SUBSYSTEM << 8 | kind, flags, &body);
    }

    /// What became of it; nothing is sent when nothing is asked for.
    fn commit_unless_empty(self, nft: &NftSocket) -> Result<(), Refusal> {
        if self.0.len() == 1 {
            return Ok(());
        }
        self.commit(nft).outcome()
    }

    /// What became of each request; all failed when one did, and then the first result that is an error names
    /// the cause. An error of the commit itself is told of the first place.
    fn commit(mut self, nft: &NftSocket) -> Committed {
        self.0.push_bytes(
            libc::NFNL_MSG_BATCH_END as u16,
            0,
            &generic_head(0, SUBSYSTEM),
        );
        let mut results = nft.with(|socket, buffer| self.0.run_transaction(socket, buffer));
        let whole = results.remove(0).err();
        results.pop();
        Committed {
            whole,
            requests: results,
        }
    }
}

/// The answers to a transaction.
#[derive(Debug)]
struct Committed {
    /// Why it failed as a whole.
    whole: Option<Refusal>,
    /// What was wrong with each request.
    requests: Vec<Result<(), Refusal>>,
}

impl Committed {
    /// The first cause of failure.
    fn outcome(self) -> Result<(), Refusal> {
        match self.whole {
            Some(refusal) => Err(refusal),
            None => self.requests.into_iter().collect(),
        }
    }
}

/// Bytes of a field in a concatenation: whole registers.
fn padded(part: Type) -> usize {
    part.bytes().next_multiple_of(4)
}

fn generic_head(family: u8, resource: u16) -> [u8; HEAD] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Body of a request outside of a transaction.
fn request(family: u8, attributes: &Writer) -> Vec<u8> {
    let mut body = generic_head(family, 0).to_vec();
    body.extend_from_slice(&attributes.0);
    body
}

/// Whether a notification says that the rules of the namespace changed (`NFT_MSG_NEWGEN`).
pub(crate) fn is_new_generation(message: &Message<'_>) -> bool {
    message.kind == SUBSYSTEM << 8 | kind::NEW_GENERATION
}

//! hickory-server, as a daemon might have it built in: listening in each sandbox, with threads of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use hickory_server::Server as Hickories;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::A;
use hickory_server::proto::rr::{RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::server::{PORT, Server, Spot};
use crate::netns::{Named, Netns};

/// Where it listens in each namespace: as our own resolver does.
const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), PORT);
/// What it says to every question.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// How long an answer may be kept, in seconds.
const TTL: u32 = 60;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(5);
/// Answers that may wait in a connection.
const WAITING: usize = 128;
/// What it says when it listens.
const READY: &str = "ready";

/// hickory-server and namespaces in which it answers.
pub(super) struct Hickory {
    child: Child,
    spots: Vec<Spot>,
    /// Kept for their names.
    _places: Vec<Named>,
}

impl Hickory {
    /// Starts it in so many new namespaces.
    pub(super) fn start(place: &Path, askers: u32) -> anyhow::Result<Self> {
        let home = Netns::enter_new()?;
        let (mut spots, mut places) = (Vec::new(), Vec::new());
        for n in 0..askers {
            let named = Named::create(place.join(format!("hickory{n}")), &home)?;
            spots.push(Spot {
                netns: Netns::open(&named.path)?,
                server: LISTEN,
            });
            places.push(named);
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--answer")
            .args(places.iter().map(|named| &named.path))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("it has no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let hickory = Self {
            child,
            spots,
            _places: places,
        };
        if line.trim() != READY {
            bail!("hickory-server does not start");
        }
        Ok(hickory)
    }
}

impl Drop for Hickory {
    fn drop(&mut self) {
        // What survives goes with the process namespace.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server for Hickory {
    fn name(&self) -> &'static str {
        "hickory-server 0.26"
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn spots(&self) -> &[Spot] {
        &self.spots
    }

    fn home(&self) -> Option<&Netns> {
        None
    }

    fn address(&self) -> Ipv4Addr {
        ADDRESS
    }
}

/// The other process: answers in these namespaces until it is killed.
pub(crate) fn answer(paths: &[PathBuf]) -> anyhow::Result<()> {
    let mut sockets = Vec::new();
    for path in paths {
        Netns::open(path)?.enter()?;
        let (udp, tcp) = (UdpSocket::bind(LISTEN)?, TcpListener::bind(LISTEN)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        sockets.push((udp, tcp));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut server = Hickories::new(Answerer);
        for (udp, tcp) in sockets {
            server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
            let tcp = tokio::net::TcpListener::from_std(tcp)?;
            server.register_listener(tcp, SILENCE, WAITING);
        }
        writeln!(std::io::stdout(), "{READY}")?;
        Ok(server.block_until_done().await?)
    })
}

/// Says the same address to everybody, whatever the name.
struct Answerer;

#[async_trait]
impl RequestHandler for Answerer {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let record = request.request_info().ok().map(|info| {
            let name = info.query.original().name().clone();
            Record::from_rdata(name, TTL, RData::A(A(ADDRESS)))
        });
        if record.is_none() {
            metadata.response_code = ResponseCode::FormErr;
        }
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            record.as_ref(),
            [],
            [],
            [],
        );
        let sent = response_handle.send_response(response).await;
        sent.unwrap_or_else(|_| {
            ResponseInfo::from(Header {
                metadata,
                counts: HeaderCounts::default(),
            })
        })
    }
}

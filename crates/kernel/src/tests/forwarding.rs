//! Forwarding entries while frames arrive that would move them.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

use tombolo_netstate::Mac;

use super::scenery::{on_host, run};
use crate::netlink::socket::Protocol;
use crate::netlink::{Batch, ReadBuffer, Socket, fdb};

/// How often an entry is made anew. Where it can be moved, one in twenty was.
const ROUNDS: usize = 4_000;

/// Ends the sender with the test, also with one that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn index(link: &str) -> u32 {
    let shown = run("ip", &["-o", "link", "show", link]);
    let (index, _) = shown.split_once(':').unwrap();
    index.parse().unwrap()
}

#[test]
fn netns_an_entry_is_where_it_was_put_whatever_arrives_elsewhere() {
    on_host(0, |_| {
        run(
            "sh",
            &[
                "-ec",
                "ip link add lan type bridge
                 for n in 1 2; do
                     ip link add q$n address 02:00:00:00:00:07 type veth peer name p$n
                     ip link set p$n master lan up
                     ip link set q$n up
                 done
                 ip link set lan up
                 ip address add 10.9.9.2/24 dev q2
                 ip neighbour add 10.9.9.9 lladdr 02:00:00:00:00:09 dev q2",
            ],
        );
        let port = index("p1");
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        let socket = Socket::open(Protocol::Route).unwrap();
        let mut buffer = ReadBuffer::new();
        let stop = AtomicBool::new(false);
        let moved = std::thread::scope(|scope| {
            scope.spawn(|| {
                let sender = UdpSocket::bind("10.9.9.2:0").unwrap();
                while !stop.load(Ordering::Relaxed) {
                    sender.send_to(b"frame", "10.9.9.9:9").unwrap();
                }
            });
            let _stop = Stop(&stop);
            let moved = (0..ROUNDS).filter(|_| {
                let mut batch = Batch::default();
                fdb::delete(&mut batch, port, mac);
                // There is none of ours the first time.
                drop(batch.run(&socket, &mut buffer));
                let mut batch = Batch::default();
                fdb::set(&mut batch, port, mac);
                for result in batch.run(&socket, &mut buffer) {
                    result.unwrap();
                }
                let entries = fdb::dump(&socket, &mut buffer).unwrap();
                !entries
                    .iter()
                    .any(|entry| entry.mac == mac && entry.port == port)
            });
            moved.count()
        });
        assert_eq!(moved, 0, "of {ROUNDS} entries that were put at a port");
    });
}

//! UDP sessions.

use super::*;

/// A published UDP port of every IPv4 address, or of every address.
fn published(any: &str) -> Published {
    let socket = UdpSocket::bind((any, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let address = if any == "::" {
        HostAddress::Any
    } else {
        HostAddress::AnyV4
    };
    Published::new(Protocol::Udp, address, port, socket)
}

fn publish(relay: &Relay, published: &Published, target: SocketAddr) {
    let routes = vec![published.route(target.port())];
    relay.set("a", routes, published.listeners()).unwrap();
}

/// Takes a datagram that must be `text`; who sent it.
fn take(socket: &UdpSocket, text: &str) -> SocketAddr {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], text.as_bytes());
    from
}

#[test]
fn each_client_has_its_own_way_back_from_the_address_it_asked() {
    let (inside, target) = udp(LOCALHOST);
    for any in ["0.0.0.0", "::"] {
        let (relay, published) = (relay(), published(any));
        publish(&relay, &published, target);
        let clients = ["127.0.0.1", "127.0.0.5", "127.0.0.6"].map(|asked| {
            let asked: IpAddr = asked.parse().unwrap();
            let (client, _) = udp(LOCALHOST);
            let asked = SocketAddr::new(asked, published.port);
            client.send_to(b"question", asked).unwrap();
            let upstream = take(&inside, "question");
            (client, asked, upstream)
        });
        for (n, (client, asked, upstream)) in clients.iter().enumerate() {
            for round in 0..3 {
                let answer = format!("{n} {round}");
                inside.send_to(answer.as_bytes(), upstream).unwrap();
                assert_eq!(take(client, &answer), *asked);
            }
            client.send_to(b"again", asked).unwrap();
            assert_eq!(take(&inside, "again"), *upstream);
        }
        let counts = relay.counts();
        assert_eq!((counts.sessions, counts.total, counts.refused), (3, 3, 0));
    }
}

#[test]
fn a_filter_holds_for_sessions_that_exist() {
    let (inside, target) = udp(LOCALHOST);
    let (relay, published) = (relay(), published("0.0.0.0"));
    publish(&relay, &published, target);
    let (client, _) = udp(LOCALHOST);
    let asked = (LOCALHOST, published.port);
    client.send_to(b"one", asked).unwrap();
    take(&inside, "one");
    let mut filtered = published.route(target.port());
    filtered.from = vec!["127.0.0.2/32".parse().unwrap()];
    relay
        .set("a", vec![filtered], published.listeners())
        .unwrap();
    wait(&relay, |counts| counts.sessions == 0);
    client.send_to(b"two", asked).unwrap();
    wait(&relay, |counts| counts.refused == 1);
    let (friend, _) = udp("127.0.0.2".parse::<IpAddr>().unwrap());
    friend.send_to(b"three", asked).unwrap();
    take(&inside, "three");
}

#[test]
fn sessions_end_after_silence_the_unanswered_sooner() {
    let bounds = Bounds {
        unanswered: Duration::from_millis(50),
        idle: Duration::from_secs(1),
        ..Bounds::default()
    };
    let (inside, target) = udp(LOCALHOST);
    let (relay, published) = (relay_within(bounds), published("0.0.0.0"));
    publish(&relay, &published, target);
    let asked = (LOCALHOST, published.port);
    let ((answered, _), (ignored, _)) = (udp(LOCALHOST), udp(LOCALHOST));
    answered.send_to(b"one", asked).unwrap();
    let upstream = take(&inside, "one");
    inside.send_to(b"yes", upstream).unwrap();
    take(&answered, "yes");
    ignored.send_to(b"two", asked).unwrap();
    take(&inside, "two");
    wait(&relay, |counts| counts.total == 2 && counts.sessions == 1);
    answered.send_to(b"more", asked).unwrap();
    assert_eq!(take(&inside, "more"), upstream);
    wait(&relay, |counts| counts.sessions == 0);
}

#[test]
fn the_longest_silent_session_gives_way() {
    let bounds = Bounds {
        sessions: 3,
        ..Bounds::default()
    };
    let (inside, target) = udp(LOCALHOST);
    let (relay, published) = (relay_within(bounds), published("0.0.0.0"));
    publish(&relay, &published, target);
    let asked = (LOCALHOST, published.port);
    let clients: Vec<UdpSocket> = (0..4).map(|_| udp(LOCALHOST).0).collect();
    let ask = |n: usize| {
        clients[n].send_to(b"?", asked).unwrap();
        take(&inside, "?")
    };
    let first: Vec<SocketAddr> = (0..3).map(ask).collect();
    assert_eq!(ask(0), first[0]);
    ask(3);
    let counts = wait(&relay, |counts| counts.sessions == 3);
    assert_eq!(counts.total, 4);
    assert_eq!((ask(0), ask(2)), (first[0], first[2]));
    inside.send_to(b"late", first[1]).unwrap();
    let patience = Some(Duration::from_millis(100));
    clients[1].set_read_timeout(patience).unwrap();
    clients[1].recv_from(&mut [0; 8]).unwrap_err();
}

#[test]
fn the_largest_datagrams_pass_and_too_large_ones_only_lose_themselves() {
    let (inside, target) = udp(LOCALHOST);
    let (relay, published) = (relay(), published("::"));
    publish(&relay, &published, target);
    let (client, _) = udp("::1".parse::<IpAddr>().unwrap());
    let asked = ("::1", published.port);
    // What IPv6 can carry and IPv4 cannot (RFC 768, RFC 791, RFC 8200).
    client.send_to(&vec![7; 65_527], asked).unwrap();
    client.send_to(&vec![8; 65_507], asked).unwrap();
    client.send_to(b"", asked).unwrap();
    let mut buffer = vec![0; 70_000];
    let (length, upstream) = inside.recv_from(&mut buffer).unwrap();
    assert_eq!(length, 65_507);
    assert!(buffer[..length].iter().all(|byte| *byte == 8));
    take(&inside, "");
    inside.send_to(&vec![9; 65_507], upstream).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap().0, 65_507);
}

#[test]
fn a_sandbox_that_does_not_listen_yet_is_asked_again() {
    let (inside, target) = udp(LOCALHOST);
    drop(inside);
    let (relay, published) = (relay(), published("0.0.0.0"));
    publish(&relay, &published, target);
    let (client, _) = udp(LOCALHOST);
    let asked = (LOCALHOST, published.port);
    for _ in 0..3 {
        client.send_to(b"early", asked).unwrap();
        wait(&relay, |counts| counts.sessions == 1);
        std::thread::sleep(Duration::from_millis(5));
    }
    let inside = UdpSocket::bind(target).unwrap();
    inside.set_read_timeout(Some(LONG)).unwrap();
    // The refusal of an earlier datagram is told to the next that is sent.
    client.send_to(b"lost", asked).unwrap();
    client.send_to(b"now", asked).unwrap();
    let mut buffer = [0; 8];
    loop {
        let (length, upstream) = inside.recv_from(&mut buffer).unwrap();
        if &buffer[..length] == b"now" {
            inside.send_to(b"yes", upstream).unwrap();
            break;
        }
    }
    take(&client, "yes");
}

#[test]
fn a_port_is_free_when_its_owner_was_removed() {
    let (inside, target) = udp(LOCALHOST);
    let relay = relay();
    for _ in 0..20 {
        let published = published("0.0.0.0");
        let port = published.port;
        publish(&relay, &published, target);
        drop(published);
        let (client, _) = udp(LOCALHOST);
        client.send_to(b"?", (LOCALHOST, port)).unwrap();
        take(&inside, "?");
        relay.remove("a").unwrap();
        UdpSocket::bind((LOCALHOST, port)).unwrap();
    }
    wait(&relay, |counts| counts.sessions == 0);
}

//! Links: what one sandbox may reach of another on a network whose endpoints do not speak to each other.

use std::net::{IpAddr, SocketAddr};

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::talk::{Sees, Server, Way, assert_ways};

use Sees::{Client, Nobody};

fn way<'a>(what: &'static str, from: &'a Place, to: IpAddr, port: u16, sees: Sees) -> Way<'a> {
    Way {
        what,
        from,
        source: None,
        to: SocketAddr::new(to, port),
        sees,
    }
}

/// Ways from one place to ports of another, over both families.
fn ways<'a>(
    what: &'static str,
    from: &'a Place,
    to: &Place,
    ports: impl IntoIterator<Item = (u16, Sees)>,
) -> Vec<Way<'a>> {
    let both = [to.v4(), to.v6()];
    let ports = ports.into_iter();
    ports
        .flat_map(|(port, sees)| both.map(|to| way(what, from, to, port, sees)))
        .collect()
}

/// The hosts file of a sandbox.
fn hosts(stage: &Stage, name: &str) -> String {
    let files = stage.inspect(name).files.unwrap();
    std::fs::read_to_string(stage.path(files.hosts)).unwrap()
}

/// The addresses that a hosts file has for a name.
fn named(hosts: &str, name: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word == name).then_some(address)
    });
    lines.collect()
}

#[test]
fn a_link_opens_the_exposed_ports_in_its_direction_and_nothing_else() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create q --ipv6 --icc=false");
    let before = stage.traces().unwrap();
    let db = stage.sandbox(
        "db",
        "--network q --expose 5432 --expose 5432/udp --expose 6000-6002 --expose 6000-6002/udp -p 7000:70 -p 7000:70/udp",
    );
    let web = stage.sandbox(
        "web",
        "--network q --link db:store --expose 80 --expose 80/udp",
    );
    let third = stage.sandbox("third", "--network q");
    let at_db = [5432, 5433, 6001, 6003, 70].map(|port| Server::at(&db, "db", port..=port));
    let at_web = Server::at(&web, "web", 80..=80);
    let opened = [
        (5432, Client),
        (6001, Client),
        (70, Client),
        (5433, Nobody),
        (6003, Nobody),
    ];
    assert_ways(&ways("link", &web, &db, opened), "db", &[]);
    let closed = opened.map(|(port, _)| (port, Nobody));
    assert_ways(&ways("no link", &third, &db, closed), "db", &[]);
    assert_ways(&ways("back", &db, &web, [(80, Nobody)]), "web", &[]);
    assert!(web.pings_in_vain(db.v4()) && web.pings_in_vain(db.v6()));
    let text = hosts(&stage, "web");
    for name in ["store", "db"] {
        assert_eq!(named(&text, name), db.addresses, "{name} in {text}");
    }
    assert!(named(&hosts(&stage, "third"), "store").is_empty());
    let seen = stage.inspect("web").links;
    assert!(
        seen.len() == 1 && seen[0].active && seen[0].alias == "store",
        "{seen:?}"
    );
    for (name, value) in [
        ("STORE_PORT", format!("tcp://{}:70", db.v4())),
        ("STORE_PORT_5432_TCP_ADDR", db.v4().to_string()),
        ("STORE_PORT_5432_TCP_PORT", "5432".to_owned()),
        ("STORE_PORT_5432_TCP_PROTO", "tcp".to_owned()),
        ("STORE_PORT_5432_UDP", format!("udp://{}:5432", db.v4())),
        ("STORE_NAME", "/web/store".to_owned()),
    ] {
        assert_eq!(
            seen[0].environment.get(name),
            Some(&value),
            "{:#?}",
            seen[0].environment
        );
    }
    assert_eq!(stage.inspect("db").linked_by, ["web"]);
    stage.assert_in_place();
    drop((at_db, at_web));
    stage.ok("sandbox rm db web third");
    stage.assert_traces(&before);
}

#[test]
fn a_link_follows_restart_and_re_creation_and_ends_with_its_target() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create q --ipv6 --icc=false");
    let make = || stage.sandbox("db", "--network q --expose 5432 --expose 5432/udp");
    let db = make();
    let web = stage.sandbox("web", "--network q --link db:store");
    let one = |sees| [(5432, sees)];
    let store = |wanted: &[IpAddr]| {
        wait_until(PATIENCE, || named(&hosts(&stage, "web"), "store") == wanted)
    };
    let server = Server::at(&db, "first", 5432..=5432);
    assert_ways(&ways("link", &web, &db, one(Client)), "first", &[]);
    drop(server);
    stage.ok("sandbox stop db");
    assert!(store(&[]), "{}", hosts(&stage, "web"));
    stage.ok("sandbox start db");
    let db = stage.place("db");
    assert!(store(&db.addresses), "{}", hosts(&stage, "web"));
    let server = Server::at(&db, "again", 5432..=5432);
    assert_ways(&ways("link", &web, &db, one(Client)), "again", &[]);
    drop(server);
    stage.ok("sandbox rm db");
    assert!(store(&[]));
    assert!(!stage.inspect("web").links[0].active);
    // Who has its addresses next has nothing of the link.
    let words = format!(
        "--network name=q,ip={},ip6={} --expose 5432",
        db.v4(),
        db.v6()
    );
    let made = wait_until(PATIENCE, || {
        stage
            .tries(&format!("sandbox create --name heir {words}"))
            .success()
    });
    assert!(made);
    let heir = stage.place("heir");
    let server = Server::at(&heir, "heir", 5432..=5432);
    assert_ways(&ways("heir", &web, &heir, one(Nobody)), "heir", &[]);
    drop(server);
    // A new one of that name has other addresses.
    let new = make();
    assert_ne!(new.addresses, db.addresses);
    assert!(store(&new.addresses), "{}", hosts(&stage, "web"));
    let server = Server::at(&new, "new", 5432..=5433);
    let ports = [(5432, Client), (5433, Nobody)];
    assert_ways(&ways("link", &web, &new, ports), "new", &[]);
    drop(server);
    stage.assert_in_place();
}

#[test]
fn several_links_stand_beside_each_other_and_go_one_by_one() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create q --ipv6 --icc=false");
    stage.ok("network create r --ipv6 --icc=false");
    let names = ["one", "two", "three"];
    let served = "--expose 80 --expose 80/udp";
    let mut places = Vec::new();
    for name in names {
        let network = if name == "three" { "r" } else { "q" };
        let place = stage.sandbox(name, &format!("--network {network} {served}"));
        let server = Server::at(&place, name, 80..=81);
        places.push((name, place, server));
    }
    let links = "--link one --link two:second --link three";
    let web = stage.sandbox("web", &format!("--network q --network r {links}"));
    for (name, place, _) in &places {
        assert_ways(
            &ways("link", &web, place, [(80, Client), (81, Nobody)]),
            name,
            &[],
        );
    }
    assert_eq!(
        named(&hosts(&stage, "web"), "second"),
        places[1].1.addresses
    );
    assert_eq!(stage.inspect("web").links.len(), 3);
    places.remove(0);
    stage.ok("sandbox rm one");
    for (name, place, _) in &places {
        assert_ways(
            &ways("link", &web, place, [(80, Client), (81, Nobody)]),
            name,
            &[],
        );
    }
    // What is exposed by a publication that comes later is open to those who are linked.
    stage.ok("publish add two 8081:81 8081:81/udp");
    let two = &places[0];
    assert_ways(&ways("link", &web, &two.1, [(81, Client)]), "two", &[]);
    stage.ok("publish rm two 81 81/udp");
    assert_ways(
        &ways("link", &web, &two.1, [(80, Client), (81, Nobody)]),
        "two",
        &[],
    );
    stage.assert_in_place();
}

#[test]
fn programs_find_what_they_are_linked_to_in_hosts_and_environment() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create q --icc=false");
    stage.ok("run -d --name db --network q --expose 5432 sleep 60");
    let address = stage.place("db").v4().to_string();
    let line = [
        "run",
        "--rm",
        "--name",
        "web",
        "--network",
        "q",
        "--link",
        "db:store",
        "sh",
        "-c",
        "env; cat /etc/hosts",
    ];
    let told = stage.ok_words(&line);
    for wanted in [
        format!("STORE_PORT_5432_TCP_ADDR={address}"),
        format!("STORE_PORT_5432_TCP=tcp://{address}:5432"),
        "STORE_NAME=/web/store".to_owned(),
    ] {
        assert!(
            told.lines().any(|line| line == wanted),
            "no {wanted} in {told}"
        );
    }
    assert_eq!(named(&told, "store"), [address.parse::<IpAddr>().unwrap()]);
    stage.ok("rm --force db");
}

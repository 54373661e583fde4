//! When a name begins and when it ends.

use tombolo_tests::Stage;

use crate::scene::{ask, ask_at, assert_missing, assert_named, assert_soon, found, ip};

#[test]
fn a_name_answers_when_its_command_returns_and_ends_with_it() {
    let Some(stage) = Stage::start_with(&["--address-cooldown-seconds=0"]) else {
        return;
    };
    stage.ok("network create one --ipv6");
    let asker = stage.sandbox("asker", "--network one");
    for round in 0..5 {
        let web = stage.sandbox("web", "--network one --network-alias www");
        // No waiting, here or below: what a command says is so when it ends.
        assert_named(&web, "asker", &asker.addresses);
        assert_named(&asker, "web", &web.addresses);
        assert_named(&asker, "www", &web.addresses);
        match round {
            0 => {
                stage.ok("network disconnect one web");
                assert_missing(&asker, "www");
                stage.ok("network connect one web --alias other");
                let web = stage.place("web");
                assert_named(&asker, "other", &web.addresses);
                assert_named(&asker, "web", &web.addresses);
                assert_missing(&asker, "www");
            }
            1 => {
                stage.ok("sandbox stop web");
                assert_missing(&asker, "web");
                stage.ok("sandbox start web");
                let web = stage.place("web");
                assert_named(&asker, "web", &web.addresses);
                assert_named(&web, "asker", &asker.addresses);
            }
            2 => {
                let endpoint = stage.inspect("web").endpoints[0].name.clone();
                stage.ok(&format!("endpoint leave {endpoint}"));
                assert_missing(&asker, "web");
                assert_missing(&asker, &endpoint);
                stage.ok(&format!("endpoint join {endpoint} web"));
                assert_named(&asker, "web", &stage.place("web").addresses);
            }
            3 => {
                let endpoint = stage.inspect("web").endpoints[0].name.clone();
                stage.ok(&format!("endpoint rm {endpoint}"));
                assert_missing(&asker, "www");
            }
            _ => {}
        }
        stage.ok("sandbox rm web");
        assert_missing(&asker, "web");
        assert_missing(&asker, "web.one");
    }
    // The name is free for another, which is then found under it.
    let other = stage.sandbox("web", "--network one");
    assert_named(&asker, "web", &other.addresses);
    stage.assert_in_place();
}

#[test]
fn networks_that_come_and_go_bring_their_names_and_take_them_along() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one");
    stage.ok("network create two --ipv6");
    let asker = stage.sandbox("asker", "--network one");
    let db = stage.sandbox("db", "--network two");
    assert_missing(&asker, "db");
    stage.ok("network connect two asker --alias me");
    assert_named(&asker, "db", &db.addresses);
    assert_named(&asker, "db.two", &db.addresses);
    assert_eq!(found(&db, "me", "AAAA").len(), 1);
    stage.ok("network disconnect two asker");
    assert_missing(&asker, "db");
    assert_missing(&db, "me");
    stage.ok("sandbox rm db");
    stage.ok("network rm two");
    assert_missing(&asker, "db.two.tombolo.internal");
    // Another network of that name is another network.
    stage.ok("network create two");
    stage.ok("network connect two asker");
    assert_missing(&asker, "db.two");
    let db = stage.sandbox("db", "--network two");
    assert_named(&asker, "db.two", &db.addresses);
    stage.assert_in_place();
}

#[test]
fn a_sandbox_without_networks_has_no_resolver_and_one_that_has_left_them_all_neither() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one");
    let asker = stage.sandbox("asker", "--network one");
    let lone = stage.sandbox("lone", "");
    let sockets = |place: &tombolo_tests::Place| {
        let listed = place.ok("ss -Hlntu src 127.0.0.11");
        listed.lines().count()
    };
    assert_eq!((sockets(&asker), sockets(&lone)), (2, 0));
    stage.ok("network connect one lone");
    let place = stage.place("lone");
    assert_eq!(sockets(&place), 2);
    assert_named(&place, "asker", &asker.addresses);
    stage.ok("network disconnect one lone");
    assert_soon("the sockets are closed", || sockets(&place) == 0);
    // Nor does it get to the resolver of another.
    let reply = ask_at(&place, asker.v4(), "asker A +time=1");
    assert_eq!(reply.status, "", "{}", reply.text);
    stage.ok("network connect one lone");
    assert_named(&stage.place("lone"), "asker", &asker.addresses);
    stage.assert_in_place();
}

#[test]
fn what_shares_a_network_namespace_shares_its_names() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    stage.ok("network create one --ipv6");
    stage.ok("run -d --name web --network one sleep 1000");
    stage.ok("run -d --name beside --network container:web sleep 1000");
    let asker = stage.sandbox("asker", "--network one");
    let web = stage.place("web");
    assert_named(&asker, "web", &web.addresses);
    assert_missing(&asker, "beside");
    let answer = stage.ok_words(&["exec", "beside", "getent", "hosts", "asker"]);
    assert!(answer.contains("asker"), "{answer}");
    stage.ok("rm -f beside");
    assert_named(&web, "asker", &asker.addresses);
    // A program's end takes its name along.
    stage.ok("stop -t 0 web");
    assert_missing(&asker, "web");
    stage.ok("start web");
    assert_soon("it is back", || {
        ask(&asker, "web A").data() == [web.v4().to_string()]
    });
    stage.ok("rm -f web");
    assert_missing(&asker, "web");
    stage.ok("sandbox rm asker");
    stage.ok("network rm one");
    stage.assert_traces(&before);
}

#[test]
fn sandboxes_in_namespaces_of_others_ask_and_are_found_like_any() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    stage.shell("ip netns add foreign && ip -n foreign link set lo up");
    let asker = stage.sandbox("asker", "--network one");
    let guest = stage.sandbox("guest", "--netns /run/netns/foreign --network one");
    assert_named(&guest, "asker", &asker.addresses);
    assert_named(&asker, "guest", &guest.addresses);
    assert_eq!(ask_at(&guest, ip("127.0.0.11"), "guest A").data().len(), 1);
    stage.ok("sandbox rm guest");
    assert_missing(&asker, "guest");
    // No socket of ours keeps it from going.
    let sockets = || stage.shell("ip netns exec foreign ss -Hlntu");
    assert_soon("the sockets are closed", || sockets().is_empty());
    stage.shell("ip netns del foreign");
}

#[test]
fn names_of_sandboxes_that_are_made_at_the_same_time_answer_at_once() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    stage.sandbox("asker", "--network one");
    let (stage, asker) = (&stage, &stage.place("asker"));
    std::thread::scope(|scope| {
        for worker in 0..6 {
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("s-{worker}-{round}");
                    let place = stage.sandbox(&name, "--network one --network-alias all");
                    assert_named(asker, &name, &place.addresses);
                    assert_named(&place, "asker", &asker.addresses);
                    let all = found(&place, "all", "A");
                    assert!(all.contains(&place.v4().to_string()), "{all:?}");
                    if round % 2 == 1 {
                        stage.ok(&format!("sandbox rm {name}"));
                        assert_missing(asker, &name);
                        let all = found(asker, "all", "A");
                        assert!(!all.contains(&place.v4().to_string()), "{all:?}");
                    }
                }
            });
        }
    });
    assert_eq!(found(asker, "all", "AAAA").len(), 12);
    stage.assert_in_place();
}

#[test]
fn a_namespace_whose_owner_brings_loopback_up_later_is_answered_from_then_on() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    stage.shell("ip netns add foreign");
    let guest = stage.sandbox("guest", "--netns /run/netns/foreign --network one");
    // The interface is not ours to bring up.
    assert!(guest.ok("ip link show dev lo").contains("state DOWN"));
    assert_eq!(ask(&guest, "guest A +time=1").status, "");
    guest.ok("ip link set lo up");
    assert_named(&guest, "guest", &guest.addresses);
    stage.assert_in_place();
    stage.ok("sandbox rm guest");
    stage.shell("ip netns del foreign");
}

#[test]
fn the_name_of_a_process_that_was_adopted_ends_with_it() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    let asker = stage.sandbox("asker", "--network one");
    let pid = stage.shell(
        "unshare -n sleep 1000 >/dev/null 2>&1 & echo $!; \
         while [ $(readlink /proc/$!/ns/net) = $(readlink /proc/self/ns/net) ]; do :; done",
    );
    let guest = stage.sandbox("guest", &format!("--pid {pid} --network one"));
    assert_named(&asker, "guest", &guest.addresses);
    stage.shell(&format!("kill -9 {pid}"));
    // Our own sockets keep its namespace, so that nothing else tells of its end.
    assert_soon("the name has ended", || ask(&asker, "guest A").is_missing());
    assert!(stage.inspect("guest").netns.is_none());
    stage.assert_in_place();
}

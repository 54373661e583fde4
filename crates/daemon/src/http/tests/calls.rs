//! Every call, from the typed client through a Unix socket to the service and back.

use std::time::{Duration, Instant};

use tombolo_api::{AsyncClient, Client, ClientError, ErrorCode};

use super::*;

/// Makes a call and checks what the service was asked and what came back.
macro_rules! check {
    ($running:ident, $client:ident.$call:ident($($argument:expr),*), $request:expr, $answer:expr) => {
        assert_eq!($client.$call($($argument),*).await.unwrap(), $answer);
        assert_eq!($running.asked(), [$request]);
    };
}

#[tokio::test]
async fn network_calls_survive_the_round_trip() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let reference = text("a b/ü");
    let create = NetworkCreate {
        mtu: Some(1400),
        ..NetworkCreate::new("web")
    };
    check!(
        running,
        client.network_create(create.clone()),
        Request::NetworkCreate(create.clone()),
        network()
    );
    let filter = NetworkFilter {
        labels: vec![text("a=b"), text("c")],
        ..Default::default()
    };
    check!(
        running,
        client.network_list(filter.clone()),
        Request::NetworkList(filter.clone()),
        [network(), network()]
    );
    check!(
        running,
        client.network_prune(),
        Request::NetworkPrune,
        pruned()
    );
    check!(
        running,
        client.network_inspect(&reference),
        Request::NetworkInspect {
            reference: reference.clone()
        },
        network()
    );
    check!(
        running,
        client.network_delete(&reference),
        Request::NetworkDelete {
            reference: reference.clone()
        },
        ()
    );
    running.end().await;
}

#[tokio::test]
async fn connecting_and_disconnecting_survive_the_round_trip() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let reference = text("web");
    let connect = NetworkConnect {
        sandbox: text("s"),
        attachment: EndpointSettings {
            aliases: vec![text("db")],
            ..Default::default()
        },
    };
    check!(
        running,
        client.network_connect(&reference, connect.clone()),
        Request::NetworkConnect {
            reference: reference.clone(),
            connect: connect.clone()
        },
        endpoint()
    );
    let disconnect = NetworkDisconnect {
        sandbox: text("s"),
        force: true,
    };
    check!(
        running,
        client.network_disconnect(&reference, disconnect.clone()),
        Request::NetworkDisconnect {
            reference: reference.clone(),
            disconnect: disconnect.clone()
        },
        ()
    );
    running.end().await;
}

#[tokio::test]
async fn endpoint_calls_survive_the_round_trip() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let reference = text("e");
    let create = EndpointSettings::default().on_network("web", Some(text("s")));
    check!(
        running,
        client.endpoint_create(create.clone()),
        Request::EndpointCreate(create.clone()),
        endpoint()
    );
    let filter = EndpointFilter {
        network: Some(text("w&b")),
        sandbox: None,
    };
    check!(
        running,
        client.endpoint_list(filter.clone()),
        Request::EndpointList(filter.clone()),
        [endpoint()]
    );
    check!(
        running,
        client.endpoint_inspect(&reference),
        Request::EndpointInspect {
            reference: reference.clone()
        },
        endpoint()
    );
    check!(
        running,
        client.endpoint_delete(&reference),
        Request::EndpointDelete {
            reference: reference.clone()
        },
        ()
    );
    check!(
        running,
        client.endpoint_join(&reference, "s"),
        Request::EndpointJoin {
            reference: reference.clone(),
            join: EndpointJoin { sandbox: text("s") }
        },
        endpoint()
    );
    check!(
        running,
        client.endpoint_leave(&reference),
        Request::EndpointLeave {
            reference: reference.clone()
        },
        endpoint()
    );
    running.end().await;
}

#[tokio::test]
async fn sandbox_calls_survive_the_round_trip() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let reference = text("s");
    let create = SandboxCreate {
        netns: NetnsChoice::Path {
            path: text("/run/netns/x"),
        },
        networks: vec![NetworkAttachment {
            network: text("web"),
            ..Default::default()
        }],
        extra_hosts: vec![text("a:10.0.0.1")],
        ..Default::default()
    };
    check!(
        running,
        client.sandbox_create(create.clone()),
        Request::SandboxCreate(create.clone()),
        sandbox()
    );
    let filter = SandboxFilter {
        name: Some(text("s")),
        labels: vec![],
    };
    check!(
        running,
        client.sandbox_list(filter.clone()),
        Request::SandboxList(filter.clone()),
        []
    );
    check!(
        running,
        client.sandbox_inspect(&reference),
        Request::SandboxInspect {
            reference: reference.clone()
        },
        sandbox()
    );
    for keep_endpoints in [true, false] {
        check!(
            running,
            client.sandbox_delete(&reference, keep_endpoints),
            Request::SandboxDelete {
                reference: reference.clone(),
                keep_endpoints
            },
            ()
        );
    }
    check!(
        running,
        client.sandbox_stop(&reference),
        Request::SandboxStop {
            reference: reference.clone()
        },
        sandbox()
    );
    check!(
        running,
        client.sandbox_start(&reference),
        Request::SandboxStart {
            reference: reference.clone()
        },
        sandbox()
    );
    running.end().await;
}

#[tokio::test]
async fn other_calls_survive_the_round_trip() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let plan = PlanRequest {
        command: Command::NetworkCreate(NetworkCreate::new("web")),
    };
    check!(running, client.version(), Request::Version, version());
    check!(running, client.info(), Request::Info, info());
    check!(
        running,
        client.plan(plan.clone()),
        Request::Plan(plan.clone()),
        operations()
    );
    check!(
        running,
        client.explain("e"),
        Request::Explain {
            reference: text("e")
        },
        explanation()
    );
    check!(running, client.drift(), Request::Drift, operations());
    check!(running, client.repair(), Request::Repair, repair_report());
    check!(running, client.doctor(), Request::Doctor, finding_report());
    check!(running, client.prune(), Request::Prune, pruned());
    running.end().await;
}

#[tokio::test]
async fn calls_about_names_survive_the_round_trip() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let filter = DnsNameFilter {
        network: Some(text("w&b")),
    };
    check!(
        running,
        client.dns_names(filter.clone()),
        Request::DnsNames(filter.clone()),
        [dns_name()]
    );
    let question = DnsQuestion {
        name: text("_http._tcp.s"),
        kind: Some(text("SRV")),
        sandbox: Some(text("a b/ü")),
    };
    check!(
        running,
        client.dns_resolve(question.clone()),
        Request::DnsResolve(question.clone()),
        dns_answer()
    );
    let nothing = DnsQuestion::default();
    let Err(ClientError::Api(error)) = client.dns_resolve(nothing).await else {
        panic!("nothing was asked for");
    };
    assert_eq!(error.code, ErrorCode::InvalidParameter);
    running.end().await;
}

#[tokio::test]
async fn a_network_can_be_named_like_a_path() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let reference = text("prune");
    check!(
        running,
        client.network_inspect(&reference),
        Request::NetworkInspect {
            reference: reference.clone()
        },
        network()
    );
    check!(
        running,
        client.network_delete(&reference),
        Request::NetworkDelete {
            reference: reference.clone()
        },
        ()
    );
    running.end().await;
}

#[tokio::test]
async fn an_error_keeps_all_its_words() {
    let running = Running::start();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let Err(ClientError::Api(error)) = client.network_inspect("gone").await else {
        panic!("the network that is gone was shown");
    };
    assert_eq!(error.code, ErrorCode::UnknownNetwork);
    assert_eq!(error.object.as_deref(), Some("gone"));
    assert_eq!(error.hint.as_deref(), Some("list them"));
    assert_eq!(error.message, "no network gone");
    // The connection is still of use.
    client.version().await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn the_blocking_client_keeps_its_connection() {
    // With room for one connection, a second one would wait for ever.
    let running = Running::start_with(|server| server.connections_max = 1);
    let address = running.address.clone();
    let calls = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(address).unwrap();
        for _ in 0..100 {
            client.version().unwrap();
        }
    });
    tokio::time::timeout(Duration::from_secs(20), calls)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(running.asked().len(), 100);
    running.end().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_opened_again() {
    let running = Running::start_with(|server| {
        server.idle_timeout = Duration::from_millis(50);
        server.connections_max = 1;
    });
    let mut idle = AsyncClient::connect(running.address.clone()).await.unwrap();
    idle.version().await.unwrap();
    // There is room for this one only once the idle one is closed.
    let mut other = AsyncClient::connect(running.address.clone()).await.unwrap();
    let served = tokio::time::timeout(Duration::from_secs(10), other.version()).await;
    served.unwrap().unwrap();
    let served = tokio::time::timeout(Duration::from_secs(10), idle.network_prune()).await;
    served.unwrap().unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_connection_too_many_waits_for_its_turn() {
    let running = Running::start_with(|server| server.connections_max = 2);
    let address = || running.address.clone();
    let mut first = AsyncClient::connect(address()).await.unwrap();
    let mut second = AsyncClient::connect(address()).await.unwrap();
    first.version().await.unwrap();
    second.version().await.unwrap();
    let mut third = AsyncClient::connect(address()).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(200), third.version()).await;
    assert!(waiting.is_err(), "a third connection was served");
    drop(first);
    let mut third = AsyncClient::connect(address()).await.unwrap();
    let served = tokio::time::timeout(Duration::from_secs(10), third.version()).await;
    served.unwrap().unwrap();
    running.end().await;
}

#[tokio::test]
async fn calls_end_before_the_server_does() {
    let running = Running::start();
    let path = running.path();
    let _idle = AsyncClient::connect(running.address.clone()).await.unwrap();
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let call = tokio::spawn(async move { client.network_inspect("slow").await });
    while running.fake.asked.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "an idle connection held the server up"
    );
    assert_eq!(call.await.unwrap().unwrap(), network());
    assert!(!path.exists());
}

#[tokio::test]
async fn calls_that_do_not_end_are_cut_off() {
    let running = Running::start_with(|server| server.drain_timeout = Duration::from_millis(20));
    let mut client = AsyncClient::connect(running.address.clone()).await.unwrap();
    let call = tokio::spawn(async move { client.network_inspect("slow").await });
    while running.fake.asked.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.end().await;
    let outcome = call.await.unwrap();
    assert!(
        matches!(outcome, Err(ClientError::Lost { .. })),
        "{outcome:?}"
    );
}

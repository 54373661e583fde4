//! The daemon dies after every single operation of what is done with published ports and links.

use tombolo_api::{Client, LinkSpec, NetworkCreate, PublicationSpec, SandboxCreate};

use crate::matrix::{Case, interrupt, nothing, remove_s};
use crate::ports::{every_form, tcp, udp};
use crate::scene::{Answer, on};

/// The sandbox `s` with what is given.
fn make_with(client: &mut Client, create: SandboxCreate) -> Answer {
    let create = SandboxCreate {
        name: Some("s".to_owned()),
        ..create
    };
    client.sandbox_create(create).map(drop)
}

fn make_published(client: &mut Client) -> Answer {
    make_with(
        client,
        SandboxCreate {
            networks: on(&["one"]),
            publish: every_form(),
            ..SandboxCreate::default()
        },
    )
}

fn make_plain(client: &mut Client) -> Answer {
    make_with(
        client,
        SandboxCreate {
            networks: on(&["one"]),
            ..SandboxCreate::default()
        },
    )
}

fn publish(client: &mut Client) -> Answer {
    client.publications_add("s", every_form()).map(drop)
}

fn unpublish(client: &mut Client) -> Answer {
    let all = client.sandbox_publications("s")?;
    let words = |p: &tombolo_api::Publication| {
        let host = p.host.as_deref().unwrap_or_default();
        format!("{}:{host}->{}/{}", p.address, p.container, p.protocol)
    };
    client.publications_remove("s", all.iter().map(words).collect())
}

#[test]
fn creating_a_sandbox_with_published_ports() {
    interrupt(&Case {
        setup: nothing,
        command: make_published,
        undo: remove_s,
        goes_on: false,
        least: 30,
    });
}

#[test]
fn deleting_a_sandbox_with_published_ports() {
    interrupt(&Case {
        setup: make_published,
        command: remove_s,
        undo: make_published,
        goes_on: true,
        least: 20,
    });
}

#[test]
fn stopping_a_sandbox_with_published_ports() {
    interrupt(&Case {
        setup: make_published,
        command: |client| client.sandbox_stop("s").map(drop),
        undo: |client| client.sandbox_start("s").map(drop),
        goes_on: true,
        least: 20,
    });
}

#[test]
fn publishing_ports_of_a_running_sandbox() {
    interrupt(&Case {
        setup: make_plain,
        command: publish,
        undo: unpublish,
        goes_on: true,
        least: 20,
    });
}

#[test]
fn withdrawing_ports_of_a_running_sandbox() {
    interrupt(&Case {
        setup: make_published,
        command: unpublish,
        undo: publish,
        goes_on: true,
        least: 20,
    });
}

fn filtered(client: &mut Client, from: &[&str]) -> Answer {
    let spec = |spec: PublicationSpec| PublicationSpec {
        from: from.iter().map(|text| (*text).to_owned()).collect(),
        ..spec
    };
    let specs = vec![spec(tcp("8085", "85")), spec(udp("8086-8089", "86-89"))];
    client.publications_add("s", specs).map(drop)
}

#[test]
fn changing_who_may_use_published_ports() {
    interrupt(&Case {
        setup: |client| {
            make_plain(client)?;
            filtered(client, &[])
        },
        command: |client| filtered(client, &["192.0.2.1", "2001:db8::/124"]),
        undo: |client| filtered(client, &[]),
        goes_on: true,
        least: 4,
    });
}

/// The network `apart`, on which nobody reaches anybody, with the sandbox `db`, which serves port 5432.
fn make_apart(client: &mut Client) -> Answer {
    let create = NetworkCreate {
        ipv6: Some(true),
        icc: Some(false),
        ..NetworkCreate::new("apart")
    };
    client.network_create(create)?;
    let create = SandboxCreate {
        name: Some("db".to_owned()),
        networks: on(&["apart"]),
        expose: vec!["5432/tcp".to_owned(), "6000-6010/udp".to_owned()],
        ..SandboxCreate::default()
    };
    client.sandbox_create(create).map(drop)
}

/// The sandbox `s` on the networks `apart` and `one` with a link to `db`.
fn make_linked(client: &mut Client) -> Answer {
    let link = LinkSpec {
        sandbox: "db".to_owned(),
        alias: Some("store".to_owned()),
    };
    let create = SandboxCreate {
        networks: on(&["apart", "one"]),
        links: vec![link],
        ..SandboxCreate::default()
    };
    make_with(client, create)
}

#[test]
fn creating_a_sandbox_with_a_link() {
    interrupt(&Case {
        setup: make_apart,
        command: make_linked,
        undo: remove_s,
        goes_on: false,
        least: 20,
    });
}

#[test]
fn deleting_a_sandbox_with_a_link() {
    interrupt(&Case {
        setup: |client| {
            make_apart(client)?;
            make_linked(client)
        },
        command: remove_s,
        undo: make_linked,
        goes_on: true,
        least: 5,
    });
}

fn make_modes(client: &mut Client) -> Answer {
    let create = NetworkCreate {
        ipv6: Some(true),
        gateway_mode_ipv4: Some("routed".to_owned()),
        gateway_mode_ipv6: Some("nat-unprotected".to_owned()),
        ..NetworkCreate::new("three")
    };
    client.network_create(create).map(drop)
}

#[test]
fn creating_a_network_with_gateway_modes() {
    interrupt(&Case {
        setup: nothing,
        command: make_modes,
        undo: |client| client.network_delete("three"),
        goes_on: false,
        least: 8,
    });
}

#[test]
fn creating_a_sandbox_with_ports_on_a_routed_network() {
    interrupt(&Case {
        setup: make_modes,
        command: |client| {
            let create = SandboxCreate {
                networks: on(&["three", "one"]),
                publish: vec![tcp("8080", "80"), udp("8090-8095", "90-95")],
                ..SandboxCreate::default()
            };
            make_with(client, create)
        },
        undo: remove_s,
        goes_on: false,
        least: 20,
    });
}

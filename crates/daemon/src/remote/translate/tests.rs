use serde_json::json;

use super::*;
use crate::plugin::wire::network::{InterfaceName, StaticRoute as WireRoute};

fn endpoint(mac: Option<[u8; 6]>) -> Endpoint {
    serde_json::from_value(json!({
        "id": format!("{:032x}", 2), "name": "web", "network": format!("{:032x}", 1),
        "addresses": ["10.9.0.2/24"], "mac": [2, 0, 0, 0, 0, 2], "sandbox": null, "order": 0,
        "epoch": 1, "fresh": false, "deleting": false, "attachment": null,
        "spec": {
            "name": null, "addresses": [], "mac": mac, "interface": null, "gateway_priority": 0,
            "aliases": [], "labels": {},
        },
    }))
    .unwrap()
}

fn said(address: &str, address_ipv6: &str, mac_address: &str) -> Option<EndpointInterface> {
    Some(EndpointInterface {
        address: address.to_owned(),
        address_ipv6: address_ipv6.to_owned(),
        mac_address: mac_address.to_owned(),
    })
}

#[test]
fn only_what_was_not_given_may_be_answered() {
    let free = endpoint(None);
    assert_eq!(added(&free, None), Ok(Added::default()));
    let both = added(&free, said("", "fd09::2/64", "02:00:00:00:00:07")).unwrap();
    assert_eq!(both.mac, Some([2, 0, 0, 0, 0, 7]));
    assert_eq!(both.addresses, ["fd09::2/64".parse::<IpNet>().unwrap()]);
    let fixed = endpoint(Some([2, 0, 0, 0, 0, 8]));
    for (endpoint, answer, word) in [
        (&free, said("10.9.0.3/24", "", ""), "IPv4"),
        (&fixed, said("", "", "02:00:00:00:00:07"), "hardware"),
        (&free, said("", "fd09::2", ""), "prefix length"),
        (&free, said("", "10.9.0.3/24", ""), "no IPv6 address"),
        (&free, said("", "", "ff:ff:ff:ff:ff:ff"), "address"),
        (&free, said("", "", "x"), "x"),
    ] {
        let refused = added(endpoint, answer).unwrap_err();
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn what_was_joined_is_read_with_its_routes() {
    let route = |destination: &str, route_type, next_hop: &str| WireRoute {
        destination: destination.to_owned(),
        route_type,
        next_hop: next_hop.to_owned(),
    };
    let link = InterfaceName {
        src_name: "vp1".to_owned(),
        dst_prefix: "lan".to_owned(),
    };
    let good = JoinResponse {
        interface_name: Some(link),
        gateway: "10.9.0.1".to_owned(),
        static_routes: vec![
            route("10.50.0.0/16", RouteType::NextHop, "10.9.0.9"),
            route("10.51.0.1/16", RouteType::Connected, ""),
        ],
        ..JoinResponse::default()
    };
    let read = joined(good.clone()).unwrap();
    assert_eq!((read.source.as_str(), read.prefix.as_str()), ("vp1", "lan"));
    assert_eq!(
        (read.gateway4, read.gateway6),
        (Some([10, 9, 0, 1].into()), None)
    );
    assert_eq!(read.routes[1].destination.to_string(), "10.51.0.0/16");
    assert_eq!(read.routes[1].via, None);
    for bad in [
        JoinResponse {
            interface_name: None,
            ..good.clone()
        },
        JoinResponse {
            gateway: "x".to_owned(),
            ..good.clone()
        },
        JoinResponse {
            static_routes: vec![route("10.50.0.0/16", RouteType::NextHop, "")],
            ..good.clone()
        },
        JoinResponse {
            static_routes: vec![route("x", RouteType::Connected, "")],
            ..good
        },
    ] {
        joined(bad.clone()).expect_err(&format!("{bad:?}"));
    }
}

#[test]
fn bytes_become_base64_as_go_writes_them() {
    for (bytes, text) in [
        (&b""[..], ""),
        (b"f", "Zg=="),
        (b"fo", "Zm8="),
        (b"foo", "Zm9v"),
        (b"foobar", "Zm9vYmFy"),
        (&[2, 0x42, 0xac, 0x11, 0, 2], "AkKsEQAC"),
    ] {
        assert_eq!(base64(bytes), text);
    }
}

/// A plugin may still have an endpoint that it failed to forget, and its links.
#[test]
fn each_attachment_of_an_endpoint_has_another_name() {
    let mut endpoint = endpoint(None);
    let mut names = Vec::new();
    for draw in [1 << 40, 2 << 40] {
        endpoint.plugin = Some(tombolo_core::model::EndpointPlugin {
            draw,
            ..Default::default()
        });
        names.push(endpoint_request(&endpoint).endpoint_id);
    }
    assert!(names.iter().all(|name| name.len() == 64), "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| name.contains(&endpoint.id.to_string()))
    );
    assert_ne!(names[0][..11], names[1][..11], "plugins name links so");
}

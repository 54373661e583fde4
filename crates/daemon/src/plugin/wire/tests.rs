//! Messages as engines and plugins write them.

use std::collections::BTreeSet;

use serde_json::{from_value, json, to_value};

use super::ipam::*;
use super::method::Method;
use super::network::*;
use super::options::*;
use super::*;

/// The network and the endpoint that requests are about.
const NETWORK: &str = "d76cfa51738e8a12c5eca71ee69e9d65010a4b48eaad74adab439be7e61b9aaf";
const ENDPOINT: &str = "abccfa51738e8a12c5eca71ee69e9d65010a4b48eaad74adab439be7e61b9aaf";

/// What is read from `text`.
fn decode<T: DeserializeOwned>(text: &str) -> T {
    read(text.as_bytes()).unwrap()
}

/// Writes it, reads that, and finds the same; what was written.
fn round<T>(message: &T) -> Value
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let value = to_value(message).unwrap();
    assert_eq!(&from_value::<T>(value.clone()).unwrap(), message);
    value
}

#[test]
fn a_network_is_read_as_docker_28_sends_it() {
    let request: CreateNetworkRequest = decode(
        r#"{"NetworkID":"d76cfa51738e8a12c5eca71ee69e9d65010a4b48eaad74adab439be7e61b9aaf",
        "Options":{"com.docker.network.enable_ipv4":true,"com.docker.network.enable_ipv6":true,
        "com.docker.network.generic":{"parent":"eth0","mtu":"1400"},
        "com.docker.network.internal":false},
        "IPv4Data":[{"AddressSpace":"LocalDefault","Gateway":"172.18.0.1/16","Pool":"172.18.0.0/16",
        "AuxAddresses":{"router":"172.18.0.2/16"}}],
        "IPv6Data":[{"AddressSpace":"LocalDefault","Pool":"fd00::/64"}]}"#,
    );
    assert_eq!(request.network_id, NETWORK);
    assert_eq!(request.ipv4_data[0].gateway, "172.18.0.1/16");
    assert_eq!(
        request.ipv4_data[0].aux_addresses["router"],
        "172.18.0.2/16"
    );
    assert_eq!(request.ipv6_data[0].pool, "fd00::/64");
    assert_eq!(request.ipv6_data[0].gateway, "");
    assert_eq!(request.ipv6_data[0].aux_addresses.len(), 0);
    round(&request);
    let options: NetworkOptions = read_object(request.options).unwrap();
    assert_eq!(options.generic["parent"], "eth0");
    assert_eq!(options.generic["mtu"], "1400");
    assert_eq!(options.enable_ipv4, Some(true));
    assert_eq!(options.enable_ipv6, Some(true));
    assert_eq!(options.internal, Some(false));
}

#[test]
fn a_network_is_read_as_docker_20_10_sends_it() {
    let request: CreateNetworkRequest = decode(
        r#"{"NetworkID":"n","Options":{"com.docker.network.enable_ipv6":false,
        "com.docker.network.generic":{}},"IPv4Data":[{"AddressSpace":"LocalDefault",
        "Gateway":"172.18.0.1/16","Pool":"172.18.0.0/16"}],"IPv6Data":[]}"#,
    );
    assert_eq!(request.ipv6_data, []);
    let options: NetworkOptions = read_object(request.options).unwrap();
    assert_eq!(options.enable_ipv4, None);
    assert_eq!(options.enable_ipv6, Some(false));
    assert_eq!(options.internal, None);
}

/// As in libnetwork issue 2451.
#[test]
fn an_endpoint_is_read_as_engines_send_it() {
    let request: CreateEndpointRequest = decode(
        r#"{"NetworkID":"n","EndpointID":"e","Interface":{"Address":"172.18.0.2/16",
        "AddressIPv6":"","MacAddress":"02:42:ac:12:00:02"},"Options":{
        "com.docker.network.endpoint.exposedports":[{"Proto":6,"Port":80},{"Proto":17,"Port":53}],
        "com.docker.network.endpoint.macaddress":"AkKsEgAC",
        "com.docker.network.endpoint.dnsservers":["9.9.9.9"],"priority":"high",
        "com.docker.network.portmap":[{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,
        "HostPortEnd":8080},{"Proto":132,"IP":"","Port":7,"HostIP":"::1","HostPort":7000,
        "HostPortEnd":7010}]}}"#,
    );
    let interface = request.interface.clone().unwrap();
    assert_eq!(interface.address, "172.18.0.2/16");
    assert_eq!(interface.address_ipv6, "");
    assert_eq!(interface.mac_address, "02:42:ac:12:00:02");
    round(&request);
    let own: Vec<_> = EndpointOptions::driver_options(&request.options).collect();
    assert_eq!(own, [("priority", "high")]);
    let options: EndpointOptions = read_object(request.options).unwrap();
    let port_map = options.port_map.unwrap();
    assert_eq!((port_map[0].proto, port_map[0].port), (6, 80));
    assert_eq!(
        port_map[0].host_port..=port_map[0].host_port_end,
        8080..=8080
    );
    assert_eq!(
        (port_map[1].proto, port_map[1].host_ip.as_str()),
        (132, "::1")
    );
    assert_eq!(
        port_map[1].host_port..=port_map[1].host_port_end,
        7000..=7010
    );
    let exposed: Vec<_> = options
        .exposed_ports
        .unwrap()
        .iter()
        .map(|p| (p.proto, p.port))
        .collect();
    assert_eq!(exposed, [(6, 80), (17, 53)]);
    assert_eq!(options.dns_servers, ["9.9.9.9"]);
    assert_eq!(options.mac_address, Some(json!("AkKsEgAC")));
}

#[test]
fn options_without_ports_are_told_from_no_ports() {
    let without: EndpointOptions = decode("{}");
    assert_eq!(without, EndpointOptions::default());
    assert_eq!(without.port_map, None);
    let none: EndpointOptions = decode(r#"{"com.docker.network.portmap":[]}"#);
    assert_eq!(none.port_map, Some(Vec::new()));
    let nil: EndpointOptions = decode(r#"{"com.docker.network.portmap":null}"#);
    assert_eq!(nil.port_map, None);
}

#[test]
fn external_connectivity_is_read_as_engines_send_it() {
    let text = format!(
        r#"{{"NetworkID":"{NETWORK}","EndpointID":"{ENDPOINT}","Options":{{
        "com.docker.network.endpoint.exposedports":[{{"Proto":6,"Port":70}}],
        "com.docker.network.portmap":[{{"Proto":6,"IP":"","Port":70,"HostIP":"","HostPort":7000,
        "HostPortEnd":7000}}],"com.docker.network.driver.private.no_proxy_6to4":true}}}}"#
    );
    let request: ProgramExternalConnectivityRequest = decode(&text);
    assert_eq!(
        (request.network_id.as_str(), request.endpoint_id.as_str()),
        (NETWORK, ENDPOINT)
    );
    let options: EndpointOptions = read_object(request.options).unwrap();
    assert_eq!(options.no_proxy_6to4, Some(true));
    assert_eq!(options.port_map.unwrap().len(), 1);
}

#[test]
fn a_join_and_its_answer_are_those_of_engines() {
    let request: JoinRequest = decode(
        r#"{"NetworkID":"n","EndpointID":"e","SandboxKey":"/var/run/docker/netns/1","Options":null}"#,
    );
    assert_eq!(request.sandbox_key, "/var/run/docker/netns/1");
    assert!(request.options.is_empty());
    let answer = JoinResponse {
        interface_name: Some(InterfaceName {
            src_name: "veth1".to_owned(),
            dst_prefix: "eth".to_owned(),
        }),
        gateway: "172.18.0.1".to_owned(),
        static_routes: vec![
            StaticRoute {
                destination: "10.0.0.0/8".to_owned(),
                route_type: RouteType::NextHop,
                next_hop: "172.18.0.9".to_owned(),
            },
            StaticRoute {
                destination: "172.19.0.0/16".to_owned(),
                route_type: RouteType::Connected,
                next_hop: String::new(),
            },
        ],
        ..JoinResponse::default()
    };
    let written = json!({
        "InterfaceName": {"SrcName": "veth1", "DstPrefix": "eth"},
        "Gateway": "172.18.0.1",
        "StaticRoutes": [
            {"Destination": "10.0.0.0/8", "RouteType": 0, "NextHop": "172.18.0.9"},
            {"Destination": "172.19.0.0/16", "RouteType": 1},
        ],
        "DisableGatewayService": false,
    });
    assert_eq!(round(&answer), written);
    let unknown = read::<StaticRoute>(br#"{"Destination":"10.0.0.0/8","RouteType":2}"#);
    let error = unknown.unwrap_err().to_string();
    assert!(error.contains("2 is no type of a route"), "{error}");
}

/// As the plugins in Go write it, with every field of the structure.
#[test]
fn an_answer_to_join_is_read_as_plugins_in_go_write_it() {
    let answer: JoinResponse = decode(
        r#"{"Err":"","InterfaceName":{"SrcName":"veth1","DstName":"","DstPrefix":"eth"},
        "Gateway":"","GatewayIPv6":"","StaticRoutes":null,"DisableGatewayService":true}"#,
    );
    assert_eq!(answer.interface_name.unwrap().src_name, "veth1");
    assert_eq!(answer.static_routes, []);
    assert!(answer.disable_gateway_service);
}

#[test]
fn an_interface_is_null_or_what_the_driver_adds() {
    let nothing = CreateEndpointResponse::default();
    assert_eq!(round(&nothing), json!({"Interface": null}));
    let interface = EndpointInterface {
        mac_address: "02:42:ac:12:00:02".to_owned(),
        ..EndpointInterface::default()
    };
    let added = CreateEndpointResponse {
        interface: Some(interface),
    };
    let written = json!({"Interface":
        {"Address": "", "AddressIPv6": "", "MacAddress": "02:42:ac:12:00:02"}});
    assert_eq!(round(&added), written);
    assert_eq!(decode::<CreateEndpointResponse>("{}"), nothing);
    assert_eq!(
        decode::<CreateEndpointResponse>(r#"{"Interface":{}}"#).interface,
        Some(EndpointInterface::default())
    );
}

#[test]
fn pools_and_addresses_are_read_as_engines_send_them() {
    let request: RequestPoolRequest = decode(
        r#"{"AddressSpace":"LocalDefault","Pool":"","SubPool":"","Options":null,"V6":false}"#,
    );
    assert_eq!(request.address_space, "LocalDefault");
    assert!(request.options.is_empty() && !request.v6);
    let answer: RequestPoolResponse = decode(
        r#"{"Error":"","PoolID":"p","Pool":"10.1.0.0/16",
        "Data":{"com.docker.network.gateway":"10.1.0.1/16"}}"#,
    );
    assert_eq!(
        (answer.pool_id.as_str(), answer.pool.as_str()),
        ("p", "10.1.0.0/16")
    );
    assert_eq!(answer.data[DATA_GATEWAY], "10.1.0.1/16");
    let request: RequestAddressRequest = decode(
        r#"{"PoolID":"p","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}"#,
    );
    assert_eq!(request.options[REQUEST_ADDRESS_TYPE], ADDRESS_TYPE_GATEWAY);
    let request: RequestAddressRequest = decode(
        r#"{"PoolID":"p","Address":"10.1.0.5","Options":{
        "com.docker.network.endpoint.macaddress":"02:42:ac:12:00:02",
        "com.docker.network.endpoint.name":"web"}}"#,
    );
    assert_eq!(request.options[MAC_ADDRESS], "02:42:ac:12:00:02");
    assert_eq!(request.options[ENDPOINT_NAME], "web");
    round(&request);
    let answer = json!({"Address": "10.1.0.5/16", "Data": null});
    let answer: RequestAddressResponse = from_value(answer).unwrap();
    assert_eq!(
        round(&answer),
        json!({"Address": "10.1.0.5/16", "Data": {}})
    );
}

#[test]
fn capabilities_are_those_of_engines() {
    let local = Capabilities {
        scope: SCOPE_LOCAL.to_owned(),
        gw_alloc_checker: true,
        ..Capabilities::default()
    };
    assert_eq!(
        round(&local),
        json!({"Scope": "local", "GwAllocChecker": true})
    );
    let old: Capabilities = decode(r#"{"Scope":"global","ConnectivityScope":null}"#);
    assert_eq!(
        (old.scope.as_str(), old.gw_alloc_checker),
        (SCOPE_GLOBAL, false)
    );
    let ipam = IpamCapabilities {
        requires_mac_address: true,
        requires_request_replay: false,
    };
    let written = json!({"RequiresMACAddress": true, "RequiresRequestReplay": false});
    assert_eq!(round(&ipam), written);
    let spaces: AddressSpaces =
        decode(r#"{"LocalDefaultAddressSpace":"l","GlobalDefaultAddressSpace":"g"}"#);
    assert_eq!((spaces.local.as_str(), spaces.global.as_str()), ("l", "g"));
    let activated: Activated = decode(r#"{"Implements":["NetworkDriver","IpamDriver"]}"#);
    assert_eq!(activated.implements, ["NetworkDriver", "IpamDriver"]);
}

#[test]
fn nodes_are_told_of_in_both_spellings() {
    let engine: DiscoveryNotification = decode(
        r#"{"DiscoveryType":1,"DiscoveryData":{"Address":"10.0.0.1","BindAddress":"10.0.0.1","Self":true}}"#,
    );
    assert_eq!(engine.discovery_type, DISCOVERY_NODE);
    assert!(engine.discovery_data.is_self);
    let documented: DiscoveryNotification =
        decode(r#"{"DiscoveryType":1,"DiscoveryData":{"Address":"10.0.0.1","self":true}}"#);
    assert!(documented.discovery_data.is_self);
    let data = json!({"Address": "10.0.0.1", "Self": true});
    assert_eq!(
        round(&documented),
        json!({"DiscoveryType": 1, "DiscoveryData": data})
    );
}

#[test]
fn requests_are_written_with_every_name() {
    assert_eq!(
        round(&AllocateNetworkRequest::default()),
        json!({"NetworkID": "", "Options": {}, "IPv4Data": [], "IPv6Data": []})
    );
    assert_eq!(
        round(&AllocateNetworkResponse::default()),
        json!({"Options": {}})
    );
    assert_eq!(
        round(&GwAllocCheckRequest::default()),
        json!({"Options": {}})
    );
    assert_eq!(
        round(&GwAllocCheckResponse::default()),
        json!({"SkipIPv4": false, "SkipIPv6": false})
    );
    assert_eq!(round(&NetworkRequest::default()), json!({"NetworkID": ""}));
    assert_eq!(
        round(&EndpointRequest::default()),
        json!({"NetworkID": "", "EndpointID": ""})
    );
    assert_eq!(
        round(&EndpointOperInfoResponse::default()),
        json!({"Value": {}})
    );
    assert_eq!(round(&IpamData::default()), json!({"AddressSpace": ""}));
    assert_eq!(round(&ReleasePoolRequest::default()), json!({"PoolID": ""}));
    assert_eq!(
        round(&ReleaseAddressRequest::default()),
        json!({"PoolID": "", "Address": ""})
    );
    assert_eq!(
        round(&RequestPoolRequest::default()),
        json!({"AddressSpace": "", "Pool": "", "SubPool": "", "Options": {}, "V6": false})
    );
    assert_eq!(round(&Done {}), json!({}));
}

#[test]
fn options_have_the_keys_of_the_constants() {
    let network = NetworkOptions {
        generic: [("a".to_owned(), "b".to_owned())].into(),
        enable_ipv4: Some(true),
        enable_ipv6: Some(true),
        internal: Some(true),
    };
    let keys: BTreeSet<String> = write_object(&network)
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let expected = [GENERIC, ENABLE_IPV4, ENABLE_IPV6, INTERNAL];
    assert_eq!(keys, expected.map(str::to_owned).into());
    let endpoint = EndpointOptions {
        port_map: Some(vec![PortBinding::default()]),
        exposed_ports: Some(vec![TransportPort::default()]),
        dns_servers: vec!["::1".to_owned()],
        mac_address: Some(json!("AkKsEgAC")),
        no_proxy_6to4: Some(true),
    };
    round(&endpoint);
    let written = write_object(&endpoint).unwrap();
    assert_eq!(EndpointOptions::driver_options(&written).count(), 0);
    let binding =
        json!({"Proto": 0, "IP": "", "Port": 0, "HostIP": "", "HostPort": 0, "HostPortEnd": 0});
    assert_eq!(written[PORT_MAP], json!([binding]));
    assert_eq!(written[EXPOSED_PORTS], json!([{"Proto": 0, "Port": 0}]));
    assert_eq!(written.len(), 5);
}

#[test]
fn what_is_missing_or_null_is_empty() {
    let empty = CreateNetworkRequest::default();
    assert_eq!(decode::<CreateNetworkRequest>("{}"), empty);
    assert_eq!(decode::<CreateNetworkRequest>("null"), empty);
    let nulls = r#"{"NetworkID":null,"Options":null,"IPv4Data":null,"IPv6Data":null,"New":[1]}"#;
    assert_eq!(decode::<CreateNetworkRequest>(nulls), empty);
    assert_eq!(
        decode::<Activated>(r#"{"Implements":null}"#),
        Activated::default()
    );
    assert_eq!(
        decode::<PortBinding>(r#"{"Port":null}"#),
        PortBinding::default()
    );
    assert_eq!(
        decode::<StaticRoute>(r#"{"RouteType":null}"#),
        StaticRoute::default()
    );
    assert_eq!(decode::<Done>(r#"{"Err":""}"#), Done {});
}

#[test]
fn values_of_another_type_are_refused() {
    assert!(read::<NetworkRequest>(br#"{"NetworkID":1}"#).is_err());
    assert!(read::<CreateNetworkRequest>(br#"{"Options":[]}"#).is_err());
    assert!(read::<CreateNetworkRequest>(br#"{"IPv4Data":{}}"#).is_err());
    assert!(read::<AllocateNetworkRequest>(br#"{"Options":{"a":1}}"#).is_err());
    assert!(read::<Capabilities>(br#"{"GwAllocChecker":"yes"}"#).is_err());
    assert!(read::<Activated>(br#"{"Implements":"NetworkDriver"}"#).is_err());
    assert!(read::<TransportPort>(br#"{"Port":65536}"#).is_err());
    assert!(read::<PortBinding>(br#"{"Proto":"tcp"}"#).is_err());
    assert!(read::<Failure>(br#"{"Err":{"code":1}}"#).is_err());
    assert!(read::<CreateEndpointResponse>(br#"{"Interface":["10.0.0.2/8"]}"#).is_err());
    assert!(read::<CreateNetworkRequest>(br#"{"IPv4Data":[["LocalDefault"]]}"#).is_err());
    let options = read::<NetworkOptions>(br#"{"com.docker.network.generic":{"mtu":1400}}"#);
    assert!(options.is_err());
}

#[test]
fn only_an_object_is_a_message() {
    for text in [
        "", "[]", r#"["n"]"#, "1", "true", r#""n""#, "{", "{}{}", "{} x",
    ] {
        assert!(read::<NetworkRequest>(text.as_bytes()).is_err(), "{text}");
        assert!(read::<Done>(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(decode::<Done>(" {}\n"), Done {});
    let deep = format!(r#"{{"Options":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert!(read::<CreateNetworkRequest>(deep.as_bytes()).is_err());
}

#[test]
fn a_failure_has_either_key_and_writes_both() {
    let failure = Failure::new("no such network");
    let written = json!({"Err": "no such network", "Error": "no such network"});
    assert_eq!(round(&failure), written);
    let driver: Failure = decode(r#"{"Err":"a"}"#);
    assert_eq!(driver.reason(), Some("a"));
    let allocator: Failure = decode(r#"{"Error":"b","PoolID":""}"#);
    assert_eq!(allocator.reason(), Some("b"));
    for text in ["{}", r#"{"Err":""}"#, r#"{"Error":null}"#, "null"] {
        assert_eq!(decode::<Failure>(text).reason(), None, "{text}");
    }
}

#[test]
fn methods_have_their_paths() {
    assert_eq!(
        Method::CreateEndpoint.path(),
        "/NetworkDriver.CreateEndpoint"
    );
    assert_eq!(
        Method::GetCapabilities.path(),
        "/NetworkDriver.GetCapabilities"
    );
    assert_eq!(
        Method::GetIpamCapabilities.path(),
        "/IpamDriver.GetCapabilities"
    );
    assert_eq!(Method::Activate.path(), "/Plugin.Activate");
    let paths: BTreeSet<_> = Method::ALL.iter().map(|method| method.path()).collect();
    assert_eq!((paths.len(), Method::ALL.len()), (22, 22));
    for method in Method::ALL {
        assert_eq!(Method::from_path(method.path()), Some(*method));
        assert_eq!(method.path(), format!("/{method}"));
    }
    for path in [
        "",
        "/",
        "Plugin.Activate",
        "/Plugin.activate",
        "/Plugin.Activate/",
        "/VolumeDriver.Create",
    ] {
        assert_eq!(Method::from_path(path), None, "{path}");
    }
}

#[test]
fn keys_are_taken_in_any_case_and_right_ones_first() {
    let failure: Failure = read(br#"{"err": "no space"}"#).unwrap();
    assert_eq!(failure.reason(), Some("no space"));
    let activated: Activated = read(br#"{"implements": ["IpamDriver"]}"#).unwrap();
    assert_eq!(activated.implements, ["IpamDriver"]);
    let both: Failure = read(br#"{"ERR": "wrong", "Err": "right"}"#).unwrap();
    assert_eq!(both.err, "right");
}

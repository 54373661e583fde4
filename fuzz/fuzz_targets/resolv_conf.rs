//! Any bytes as a `resolv.conf`: what is made of it reads as the same again.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use tombolo_dns::resolv_conf::{ResolvConf, SandboxFacts};

fuzz_target!(|data: &[u8]| {
    let conf = ResolvConf::parse(data);
    assert_eq!(ResolvConf::parse(conf.render().as_bytes()), conf);
    let facts = SandboxFacts {
        ipv6: data.len() % 2 == 0,
        own_netns: true,
        fallback: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    };
    let listen = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
    for made in [
        conf.for_sandbox(&[], &facts),
        conf.for_resolver(&[], &[listen], &facts.fallback),
    ] {
        assert_eq!(&ResolvConf::parse(made.render().as_bytes()), made.conf());
    }
});

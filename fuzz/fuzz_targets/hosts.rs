//! Any bytes as a hosts file and as an extra host: what is made of them reads as the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombolo_dns::hosts::{ExtraHost, Hosts};

fuzz_target!(|data: &[u8]| {
    let hosts = Hosts::parse(data);
    let again = Hosts::parse(hosts.render().as_bytes());
    assert_eq!(again.entries(), hosts.entries());
    if let Ok(text) = str::from_utf8(data) {
        let _ = text.parse::<ExtraHost>();
    }
});

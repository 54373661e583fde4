//! Telling neighbours where an address is: gratuitous ARP (RFC 5227 section 3) and unsolicited neighbour
//! advertisements (RFC 4861 section 7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tombolo_netstate::Mac;

use crate::sys;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// `ff02::1` as a group address of Ethernet (RFC 2464 section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Sends the announcement by link `index` of the calling thread's namespace.
pub(crate) fn announce(index: u32, ip: IpAddr, mac: Mac) -> io::Result<()> {
    match ip {
        IpAddr::V4(ip) => sys::send_frame(index, ETHERTYPE_ARP, [0xff; 6], &arp(ip, mac)),
        IpAddr::V6(ip) => sys::send_frame(
            index,
            ETHERTYPE_IPV6,
            ALL_NODES_MAC,
            &advertisement(ip, mac),
        ),
    }
}

/// An ARP request for one's own address.
fn arp(ip: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend_from_slice(&mac.0);
    packet.extend_from_slice(&ip.octets());
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&ip.octets());
    packet
}

/// An IPv6 packet with a neighbour advertisement that overrides what the neighbours know.
fn advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    const ICMPV6: u8 = 58;
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend_from_slice(&ip.octets());
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&mac.0);
    let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
    let mut pseudo = [ip.octets(), ALL_NODES.octets()].concat();
    pseudo.extend_from_slice(&[0, 0, 0, length, 0, 0, 0, ICMPV6]);
    pseudo.extend_from_slice(&message);
    message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    // Version 6, payload length, next header, and the hop limit of 255 that proves a neighbour.
    let mut packet = vec![0x60, 0, 0, 0, 0, length, ICMPV6, 255];
    packet.extend_from_slice(&ip.octets());
    packet.extend_from_slice(&ALL_NODES.octets());
    packet.extend_from_slice(&message);
    packet
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_gratuitous_arp_asks_for_its_own_address() {
        let packet = arp(Ipv4Addr::new(10, 0, 0, 9), MAC);
        assert_eq!(packet.len(), 28);
        assert_eq!(packet[6..8], [0, 1], "a request");
        assert_eq!(packet[8..14], MAC.0);
        assert_eq!(packet[14..18], packet[24..28]);
    }

    #[test]
    fn an_advertisement_has_a_checksum_that_adds_up() {
        let ip: Ipv6Addr = "fd00::9".parse().unwrap();
        let packet = advertisement(ip, MAC);
        assert_eq!(packet.len(), 40 + 32);
        assert_eq!(packet[7], 255);
        let mut pseudo = packet[8..40].to_vec();
        pseudo.extend_from_slice(&[0, 0, 0, 32, 0, 0, 0, 58]);
        pseudo.extend_from_slice(&packet[40..]);
        assert_eq!(checksum(&pseudo), 0);
    }
}

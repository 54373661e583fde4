//! What is read of tables, chains and rules.

use std::io;
use std::sync::Arc;

use tombolo_netstate::object::nft::{BaseSpec, Ruleset, TABLE};

use super::{CREATE, FAMILY_INET, HEAD, NftSocket, Transaction, kind, user};
use crate::facts::BaseChain;
use crate::netlink::attribute::{Attributes, Writer, read_be32, read_be64, read_text};
use crate::netlink::batch::Refusal;

/// Type of our entry in the table's user data, among those of nft(8).
const USER_DATA: u8 = 0x54;
/// Digest, number of chains, number of rules.
const USER_DATA_BYTES: u8 = 16;

/// What the table remembers: the digest, and how much must be there for it to hold.
pub(super) fn user_data(spec: &BaseSpec) -> Vec<u8> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![USER_DATA, USER_DATA_BYTES];
    bytes.extend_from_slice(&spec.digest.to_be_bytes());
    bytes.extend_from_slice(&count(spec.ruleset.chains.len()));
    bytes.extend_from_slice(&count(spec.ruleset.rule_count()));
    bytes
}

/// The digest, the number of chains and the number of rules in a table's user data.
fn read_user_data(mut bytes: &[u8]) -> Option<(u64, u32, u32)> {
    loop {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (value, others) = rest.split_at_checked(usize::from(head[1]))?;
        if head[0] == USER_DATA {
            return Some((
                read_be64(value)?,
                read_be32(value.get(8..)?)?,
                read_be32(value.get(12..)?)?,
            ));
        }
        bytes = others;
    }
}

/// Whether the table of our rules is there.
pub(crate) fn is_there(nft: &NftSocket) -> bool {
    get_table(nft, TABLE).is_some()
}

/// The body of the kernel's answer, none when there is no such table.
fn get_table(nft: &NftSocket, name: &str) -> Option<Vec<u8>> {
    let mut asked = Writer::default();
    asked.put_text(1, name);
    nft.ask((kind::GET_TABLE, kind::NEW_TABLE), FAMILY_INET, &asked)
}

/// A table of ours as an object: its digest counts only while its chains and rules are all there.
pub(crate) fn read_table(nft: &NftSocket, name: &str) -> io::Result<Option<BaseSpec>> {
    let Some(body) = get_table(nft, name) else {
        return Ok(None);
    };
    let remembered = Attributes::after(&body, HEAD)
        .find(6)
        .and_then(read_user_data);
    let digest = match remembered {
        Some((digest, chains, rules))
            if count(nft, name, kind::GET_CHAIN)? == chains
                && count(nft, name, kind::GET_RULE)? == rules =>
        {
            digest
        }
        _ => 0,
    };
    Ok(Some(BaseSpec {
        digest,
        ruleset: Arc::new(Ruleset::default()),
    }))
}

/// How many chains a table of ours has, or how many rules, those of the user left out.
fn count(nft: &NftSocket, name: &str, asked: u16) -> io::Result<u32> {
    let mut attributes = Writer::default();
    attributes.put_text(1, name);
    let mut count = 0;
    nft.dump(asked, FAMILY_INET, &attributes, |body| match body {
        None => count = 0,
        Some(body) => {
            let attributes = Attributes::after(body, HEAD);
            let ours = attributes.find(1).and_then(read_text) == Some(name);
            let users = asked == kind::GET_RULE
                && attributes.find(2).and_then(read_text) == Some(user::CHAIN);
            count += u32::from(ours && !users);
        }
    })?;
    Ok(count)
}

/// Removes a table of ours; one that is not there counts as removed.
pub(crate) fn delete_table(nft: &NftSocket, name: &str) -> Result<(), Refusal> {
    let mut table = Writer::default();
    table.put_text(1, name);
    let mut transaction = Transaction::new();
    transaction.push(kind::NEW_TABLE, CREATE, &table);
    transaction.push(kind::DELETE_TABLE, 0, &table);
    transaction.commit(nft).outcome()
}

/// The base chains of all tables but ours.
pub(crate) fn dump_base_chains(nft: &NftSocket) -> io::Result<Vec<BaseChain>> {
    dump_others_chains(nft, read_base_chain)
}

/// What `read` makes of the chains of all tables but ours.
pub(super) fn dump_others_chains<T>(
    nft: &NftSocket,
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut chains = Vec::new();
    nft.dump(kind::GET_CHAIN, 0, &Writer::default(), |body| match body {
        None => chains.clear(),
        Some(body) => {
            let table = Attributes::after(body, HEAD).find(1).and_then(read_text);
            if body.first() != Some(&FAMILY_INET) || table != Some(TABLE) {
                chains.extend(read(body));
            }
        }
    })?;
    Ok(chains)
}

fn read_base_chain(body: &[u8]) -> Option<BaseChain> {
    let attributes = Attributes::after(body, HEAD);
    let place = Attributes::of(attributes.find(4)?);
    let family = match i32::from(*body.first()?) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        libc::NFPROTO_ARP => "arp",
        libc::NFPROTO_BRIDGE => "bridge",
        _ => return None,
    };
    let hook = match read_be32(place.find(1)?)? {
        0 => "prerouting",
        1 => "input",
        2 => "forward",
        3 => "output",
        4 => "postrouting",
        _ => return None,
    };
    Some(BaseChain {
        family,
        table: read_text(attributes.find(1)?)?.to_owned(),
        chain: read_text(attributes.find(3)?)?.to_owned(),
        hook,
        priority: i32::from_be_bytes(*place.find(2)?.first_chunk()?),
        drops: attributes.find(5).and_then(read_be32) == Some(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_found_among_that_of_others() {
        let spec = BaseSpec {
            digest: 0x1122_3344_5566_7788,
            ruleset: Arc::default(),
        };
        let mut bytes = vec![0, 3, b'h', b'i', 0];
        bytes.extend(user_data(&spec));
        assert_eq!(read_user_data(&bytes), Some((spec.digest, 0, 0)));
        assert_eq!(read_user_data(&bytes[..bytes.len() - 1]), None);
        assert_eq!(read_user_data(&[]), None);
    }
}

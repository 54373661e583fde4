//! Which tracked connections an element of a publication stands for.

use std::net::IpAddr;

use super::{ElementKey, ElementSpec, Field, SetName};
use crate::object::port::{PortRange, Protocol};
use crate::plan::{Flows, Stale};

/// What must be forgotten when an element goes from `have` to `want`; nothing for elements that translate
/// nothing.
pub(crate) fn forgotten(
    key: &ElementKey,
    have: Option<&ElementSpec>,
    want: Option<&ElementSpec>,
) -> Option<Flows> {
    let target = |spec: Option<&ElementSpec>| match spec?.data.first() {
        Some(Field::Address(ip)) => Some(*ip),
        _ => None,
    };
    if have.is_some() && want.is_none() && admits(key.set) {
        return of(key, Stale::Untranslated);
    }
    let stale = match (target(have), target(want)) {
        (Some(old), new) if have != want && (new.is_some() || want.is_none()) => {
            Stale::Towards(old)
        }
        (None, Some(_)) => Stale::Untranslated,
        _ => return None,
    };
    let flows = of(key, stale)?;
    // A TCP connection cannot have begun where nobody listened.
    let begun = stale != Stale::Untranslated || flows.protocol == Protocol::Udp;
    begun.then_some(flows)
}

/// Whether elements of a set let connections in that nothing translates.
fn admits(set: SetName) -> bool {
    matches!(
        set,
        SetName::Routed4
            | SetName::Routed6
            | SetName::RoutedRange4
            | SetName::RoutedRange6
            | SetName::Links4
            | SetName::Links6
    )
}

fn of(key: &ElementKey, stale: Stale) -> Option<Flows> {
    let ipv6 = match key.set {
        SetName::PublishAny4
        | SetName::PublishAt4
        | SetName::PublishRange4
        | SetName::Routed4
        | SetName::RoutedRange4
        | SetName::Links4 => false,
        SetName::PublishAny6
        | SetName::PublishAt6
        | SetName::PublishRange6
        | SetName::Routed6
        | SetName::RoutedRange6
        | SetName::Links6 => true,
        _ => return None,
    };
    let flows = |protocol, to: Option<IpAddr>, ports, from| Flows {
        protocol,
        to,
        ipv6,
        ports,
        from,
        stale,
    };
    match &*key.fields {
        [Field::Protocol(protocol), Field::Port(port)] => {
            Some(flows(*protocol, None, PortRange::one(*port).ok()?, None))
        }
        [
            Field::Protocol(protocol),
            Field::Address(ip),
            Field::Port(port),
        ] => Some(flows(
            *protocol,
            Some(*ip),
            PortRange::one(*port).ok()?,
            None,
        )),
        [
            Field::Address(ip),
            Field::Protocol(protocol),
            Field::Port(port),
        ] => Some(flows(
            *protocol,
            Some(*ip),
            PortRange::one(*port).ok()?,
            None,
        )),
        [
            Field::Net(from),
            Field::Net(to),
            Field::Protocol(protocol),
            Field::Ports(ports),
        ] => {
            let from = (from.prefix_len() > 0).then_some(*from);
            Some(flows(*protocol, Some(to.addr()), *ports, from))
        }
        [
            Field::Net(from),
            Field::Protocol(protocol),
            Field::Net(to),
            Field::Ports(ports),
        ] => {
            let to = (to.prefix_len() > 0).then(|| to.addr());
            let from = (from.prefix_len() > 0).then_some(*from);
            Some(flows(*protocol, to, *ports, from))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(protocol: Protocol) -> ElementKey {
        ElementKey {
            set: SetName::PublishAny4,
            fields: [Field::Protocol(protocol), Field::Port(80)].into(),
        }
    }

    fn to(ip: &str) -> ElementSpec {
        ElementSpec {
            data: [Field::Address(ip.parse().unwrap()), Field::Port(8080)].into(),
        }
    }

    #[test]
    fn a_move_forgets_the_former_owner_and_only_that() {
        let (old, new) = (to("10.0.0.2"), to("10.0.0.3"));
        let key = element(Protocol::Tcp);
        let moved = forgotten(&key, Some(&old), Some(&new)).unwrap();
        assert_eq!(moved.stale, Stale::Towards("10.0.0.2".parse().unwrap()));
        assert_eq!(moved.to_string(), "tcp to 0.0.0.0:80 towards 10.0.0.2");
        assert_eq!(forgotten(&key, Some(&old), None).unwrap(), moved);
        assert_eq!(forgotten(&key, Some(&old), Some(&old)), None);
    }

    #[test]
    fn a_new_port_forgets_what_began_without_it_where_nobody_had_to_answer() {
        let new = to("10.0.0.3");
        assert_eq!(forgotten(&element(Protocol::Tcp), None, Some(&new)), None);
        let udp = forgotten(&element(Protocol::Udp), None, Some(&new)).unwrap();
        assert_eq!(udp.stale, Stale::Untranslated);
    }

    #[test]
    fn what_is_let_in_untranslated_is_forgotten_when_it_no_longer_is() {
        let fields = [
            Field::Net("10.0.0.0/8".parse().unwrap()),
            Field::Net("10.9.0.2/32".parse().unwrap()),
            Field::Protocol(Protocol::Tcp),
            Field::Ports("80-89".parse().unwrap()),
        ];
        let key = ElementKey::new(SetName::RoutedRange4, fields);
        let there = ElementSpec::default();
        let gone = forgotten(&key, Some(&there), None).unwrap();
        assert_eq!(
            gone.to_string(),
            "tcp to 10.9.0.2:80-89 from 10.0.0.0/8 untranslated"
        );
        assert_eq!(forgotten(&key, None, Some(&there)), None);
    }

    #[test]
    fn other_sets_translate_nothing() {
        let mut key = element(Protocol::Udp);
        key.set = SetName::RelayAny6;
        assert_eq!(forgotten(&key, None, Some(&to("10.0.0.3"))), None);
    }
}

use proptest::prelude::*;

use super::*;

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn registration(zone: u128, names: &[&str], addresses: &[&str]) -> Registration {
    Registration {
        zone: ZoneId(zone),
        canonical: host(names[0]),
        names: names[1..].iter().map(|name| host(name)).collect(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        services: Vec::new(),
    }
}

fn zone(name: &str) -> Zone {
    Zone {
        name: host(name),
        subnets: vec!["10.1.0.0/16".parse().unwrap()],
    }
}

fn owners(names: &Names, zone: u128, name: &str) -> Vec<u128> {
    let table = names.table(ZoneId(zone));
    let holders = table.map_or(&[][..], |table| table.named(name));
    holders.iter().map(|held| held.owner.0).collect()
}

#[test]
fn a_name_is_found_while_its_owner_and_network_are_there() {
    let mut names = Names::default();
    assert!(names.is_empty());
    names.set(OwnerId(1), vec![registration(7, &["Web"], &["10.1.0.2"])]);
    assert_eq!(owners(&names, 7, "web"), [0; 0]);
    names.set_zone(ZoneId(7), zone("Front"));
    assert_eq!(owners(&names, 7, "web"), [1]);
    let table = names.table(ZoneId(7)).unwrap();
    assert_eq!(table.name(), "front");
    assert_eq!(table.at("10.1.0.2".parse().unwrap()).len(), 1);
    assert!(table.covers("10.1.255.255".parse().unwrap()));
    assert!(!table.covers("10.2.0.0".parse().unwrap()));
    assert_eq!(names.held_by(OwnerId(1))[0].canonical(), "web");

    names.set(OwnerId(1), vec![registration(7, &["db"], &[])]);
    assert_eq!(owners(&names, 7, "web"), [0; 0]);
    assert_eq!(owners(&names, 7, "db"), [1]);
    assert!(!names.is_empty());

    names.remove_zone(ZoneId(7));
    assert_eq!(owners(&names, 7, "db"), [0; 0]);
    names.set_zone(ZoneId(7), zone("front"));
    assert_eq!(owners(&names, 7, "db"), [1]);

    names.remove(OwnerId(1));
    names.remove_zone(ZoneId(7));
    assert!(names.is_empty());
    assert!(names.tables.is_empty() && names.owners.is_empty());
    names.remove(OwnerId(1));
    names.remove_zone(ZoneId(7));
}

#[test]
fn owners_share_a_name_in_an_order_that_history_does_not_change() {
    let mut names = Names::default();
    names.set_zone(ZoneId(1), zone("n"));
    for owner in [3, 1, 2, 1] {
        let address = format!("10.1.0.{owner}");
        let taken = registration(1, &["a", "shared", "SHARED", "A"], &[&address, &address]);
        names.set(OwnerId(owner), vec![taken]);
    }
    assert_eq!(owners(&names, 1, "shared"), [1, 2, 3]);
    assert_eq!(owners(&names, 1, "a"), [1, 2, 3]);
    assert_eq!(names.len(), 2);
    names.remove(OwnerId(2));
    assert_eq!(owners(&names, 1, "shared"), [1, 3]);
    names.set(OwnerId(3), Vec::new());
    assert_eq!(owners(&names, 1, "shared"), [1]);
}

#[test]
fn what_is_above_the_limits_is_left_out() {
    let many = 300;
    let mut big = registration(1, &["first"], &[]);
    big.names = (0..many).map(|n| host(&format!("n{n}"))).collect();
    big.addresses = (0..many).map(|n: u32| IpAddr::V4(n.into())).collect();
    let service = |port| Service {
        protocol: Transport::Tcp,
        first: port,
        last: port,
    };
    big.services = (0..400).map(service).collect();
    let mut names = Names::default();
    let subnet = |n: u32| IpNet::new(IpAddr::V4((n << 8).into()), 24).unwrap();
    names.set_zone(
        ZoneId(1),
        Zone {
            name: host("n"),
            subnets: (0..many).map(subnet).collect(),
        },
    );
    let others = (2..=limits::OWNER_REGISTRATIONS_MAX as u128 + 1)
        .map(|zone| registration(zone, &["x"], &[]));
    names.set(OwnerId(1), std::iter::once(big).chain(others).collect());

    let held = &names.held_by(OwnerId(1))[0];
    assert_eq!(held.addresses.len(), limits::REGISTRATION_ADDRESSES_MAX);
    assert_eq!(held.services.len(), limits::REGISTRATION_SERVICES_MAX);
    assert_eq!(
        names.held_by(OwnerId(1)).len(),
        limits::OWNER_REGISTRATIONS_MAX
    );
    let table = names.table(ZoneId(1)).unwrap();
    assert_eq!(table.len(), limits::REGISTRATION_NAMES_MAX + 1);
    let last = limits::ZONE_SUBNETS_MAX as u32;
    assert!(table.covers(IpAddr::V4(((last - 1) << 8).into())));
    assert!(!table.covers(IpAddr::V4((last << 8).into())));
}

#[derive(Debug, Clone)]
enum Step {
    SetZone(u128),
    RemoveZone(u128),
    Set(u128, Vec<Registration>),
    Remove(u128),
}

const UNIVERSE: [&str; 6] = ["a", "B", "c.d", "E-f", "g_1", "H"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(&UNIVERSE[..]).prop_map(host);
    let registration = (
        0..3_u128,
        name(),
        prop::collection::vec(name(), 0..4),
        prop::collection::vec((0..5_u32).prop_map(|n| IpAddr::V4(n.into())), 0..3),
    )
        .prop_map(|(zone, canonical, names, addresses)| Registration {
            zone: ZoneId(zone),
            canonical,
            names,
            addresses,
            services: Vec::new(),
        });
    let step = prop_oneof![
        2 => (0..3_u128).prop_map(Step::SetZone),
        1 => (0..3_u128).prop_map(Step::RemoveZone),
        6 => (0..4_u128, prop::collection::vec(registration, 0..4))
            .prop_map(|(owner, all)| Step::Set(owner, all)),
        2 => (0..4_u128).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..24)
}

/// The same as plain lists.
#[derive(Default)]
struct Model {
    zones: Vec<u128>,
    held: Vec<(u128, Registration)>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::SetZone(zone) if self.zones.contains(zone) => {}
            Step::SetZone(zone) => self.zones.push(*zone),
            Step::RemoveZone(zone) => self.zones.retain(|other| other != zone),
            Step::Set(owner, all) => {
                self.apply(&Step::Remove(*owner));
                self.held.extend(all.iter().map(|r| (*owner, r.clone())));
            }
            Step::Remove(owner) => self.held.retain(|(other, _)| other != owner),
        }
    }

    fn owners(&self, zone: u128, wanted: impl Fn(&Registration) -> bool) -> Vec<u128> {
        let on = |(_, r): &&(u128, Registration)| {
            r.zone.0 == zone && self.zones.contains(&zone) && wanted(r)
        };
        let mut owners: Vec<_> = self.held.iter().filter(on).map(|(o, _)| *o).collect();
        owners.sort_unstable();
        owners
    }

    fn called(registration: &Registration, name: &str) -> bool {
        let mut all = registration.names.iter().chain([&registration.canonical]);
        all.any(|other| other.as_str().eq_ignore_ascii_case(name))
    }
}

fn apply(names: &mut Names, step: Step) {
    match step {
        Step::SetZone(id) => names.set_zone(ZoneId(id), zone("n")),
        Step::RemoveZone(id) => names.remove_zone(ZoneId(id)),
        Step::Set(owner, all) => names.set(OwnerId(owner), all),
        Step::Remove(owner) => names.remove(OwnerId(owner)),
    }
}

proptest! {
    #[test]
    fn any_history_leaves_what_plain_lists_would(steps in steps()) {
        let mut names = Names::default();
        let mut model = Model::default();
        for step in steps {
            model.apply(&step);
            apply(&mut names, step);
            let mut count = 0;
            for id in 0..3 {
                for name in UNIVERSE {
                    let expected = model.owners(id, |r| Model::called(r, name));
                    prop_assert_eq!(owners(&names, id, &name.to_ascii_lowercase()), expected);
                    count += usize::from(model.held.iter().any(|(_, r)| {
                        r.zone.0 == id && Model::called(r, name)
                    }));
                }
                for address in (0..5_u32).map(|n| IpAddr::V4(n.into())) {
                    let expected = model.owners(id, |r| r.addresses.contains(&address));
                    let table = names.table(ZoneId(id));
                    let found = table.map_or(&[][..], |table| table.at(address));
                    let found: Vec<_> = found.iter().map(|held| held.owner.0).collect();
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert_eq!(names.len(), count);
            prop_assert_eq!(names.is_empty(), count == 0);
        }
        for owner in 0..4 {
            names.remove(OwnerId(owner));
        }
        prop_assert!(names.owners.is_empty());
        prop_assert!(names.tables.values().all(|table| table.is_open() && table.len() == 0));
    }
}

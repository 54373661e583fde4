//! Small pools against a table with one entry for each address.

use proptest::prelude::*;

use super::super::address;
use super::*;

const COOLDOWN_MS: u64 = 10;

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Free,
    Fixed,
    Held(String),
    Leaving(String),
    Cooling(u64),
}

impl Cell {
    fn is_of(&self, owner: &str) -> bool {
        matches!(self, Self::Held(by) | Self::Leaving(by) if by == owner)
    }
}

/// The plainest allocator there is: one cell for each address of the subnet.
struct Table {
    cells: Vec<Cell>,
    automatic: Vec<bool>,
}

impl Table {
    fn new(spec: &PoolSpec) -> Self {
        let hosts: Vec<IpAddr> = addresses(spec.subnet);
        let point_to_point = spec.subnet.prefix_len() + 1 >= spec.subnet.max_prefix_len();
        let (zero, ones) = (spec.subnet.network(), spec.subnet.broadcast());
        let fixed = |a: &IpAddr| {
            spec.gateway == Some(*a)
                || spec.reserved.values().any(|r| r == a)
                || (a.is_ipv4() && !point_to_point && (*a == zero || *a == ones))
        };
        let automatic = |a: &IpAddr| {
            (point_to_point || *a != zero)
                && (spec.ranges.is_empty() || spec.ranges.iter().any(|r| r.contains(a)))
        };
        Self {
            cells: hosts
                .iter()
                .map(|a| if fixed(a) { Cell::Fixed } else { Cell::Free })
                .collect(),
            automatic: hosts.iter().map(automatic).collect(),
        }
    }

    /// Which cell automatic choice should give.
    fn choice(&self, now_ms: u64) -> Option<usize> {
        let free = |cell: &Cell| match cell {
            Cell::Free => true,
            Cell::Cooling(until) => *until <= now_ms,
            Cell::Fixed | Cell::Held(_) | Cell::Leaving(_) => false,
        };
        let lowest = (0..self.cells.len()).find(|&i| self.automatic[i] && free(&self.cells[i]));
        lowest.or_else(|| {
            let resting = |i: &usize| match self.cells[*i] {
                Cell::Cooling(until) => Some((until, *i)),
                _ => None,
            };
            (0..self.cells.len())
                .filter(|&i| self.automatic[i])
                .filter_map(|i| resting(&i))
                .min()
                .map(|(_, i)| i)
        })
    }
}

#[derive(Debug, Clone)]
enum Step {
    Any(u8),
    Exact(usize, u8),
    Retire(usize, u8),
    Release(usize, u8),
    Wait(u64),
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0_u8..3).prop_map(Step::Any),
        3 => (0_usize..40, 0_u8..3).prop_map(|(i, o)| Step::Exact(i, o)),
        2 => (0_usize..40, 0_u8..3).prop_map(|(i, o)| Step::Retire(i, o)),
        5 => (0_usize..40, 0_u8..3).prop_map(|(i, o)| Step::Release(i, o)),
        2 => (0_u64..15).prop_map(Step::Wait),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 0..120)
}

fn specs() -> impl Strategy<Value = PoolSpec> {
    let raw = (
        any::<bool>(),
        0_u8..6,
        prop::collection::vec((0_u8..3, 0_usize..64), 0..3),
    );
    (
        raw,
        prop::option::of(0_usize..64),
        prop::collection::vec(0_usize..64, 0..3),
    )
        .prop_filter_map(
            "the pool must be valid",
            |((v6, host_bits, ranges), gateway, reserved)| {
                let subnet = if v6 {
                    IpNet::new(ip("fd00::40"), 128 - host_bits).ok()?
                } else {
                    IpNet::new(ip("10.0.0.64"), 32 - host_bits).ok()?
                };
                let hosts = addresses(subnet);
                let at = |i: usize| hosts[i % hosts.len()];
                let range = |(bits, i): (u8, usize)| {
                    let prefix_len = subnet.max_prefix_len() - bits.min(host_bits);
                    IpNet::new(at(i), prefix_len).unwrap().trunc()
                };
                let name = |(n, i): (usize, usize)| (format!("r{n}"), at(i));
                let spec = PoolSpec {
                    subnet,
                    ranges: ranges.into_iter().map(range).collect(),
                    gateway: gateway.map(at),
                    reserved: reserved.into_iter().enumerate().map(name).collect(),
                };
                spec.validate().ok().map(|()| spec)
            },
        )
}

fn addresses(subnet: IpNet) -> Vec<IpAddr> {
    let (first, last) = address::bounds(&subnet);
    (first..=last)
        .map(|n| Family::of_net(&subnet).address(n))
        .collect()
}

/// Does `step` on both and compares what they say.
fn run(space: &mut Space, table: &mut Table, spec: &PoolSpec, step: &Step, now_ms: u64) {
    let hosts = addresses(spec.subnet);
    let name = |owner: &u8| format!("o{owner}");
    match step {
        Step::Any(owner) => {
            let owner = name(owner);
            let got = space.lease(&lowest(spec.subnet, &owner), now_ms).ok();
            let want = table.choice(now_ms);
            assert_eq!(got, want.map(|i| hosts[i]));
            want.into_iter()
                .for_each(|i| table.cells[i] = Cell::Held(owner.clone()));
        }
        Step::Exact(i, owner) => {
            let (i, owner) = (i % hosts.len(), name(owner));
            let address = Some(hosts[i]);
            let request = LeaseRequest {
                subnet: spec.subnet,
                address,
                owner: &owner,
            };
            compare_exact(
                &mut table.cells[i],
                space.lease(&request, now_ms),
                hosts[i],
                &owner,
            );
        }
        Step::Retire(i, owner) => {
            let (i, owner) = (i % hosts.len(), name(owner));
            let may = table.cells[i].is_of(&owner);
            assert_eq!(space.retire(hosts[i], &owner).is_ok(), may);
            if may {
                table.cells[i] = Cell::Leaving(owner);
            }
        }
        Step::Release(i, owner) => {
            let (i, owner) = (i % hosts.len(), name(owner));
            let may = table.cells[i].is_of(&owner);
            assert_eq!(space.release(hosts[i], &owner, now_ms).is_ok(), may);
            if may {
                table.cells[i] = Cell::Cooling(now_ms + COOLDOWN_MS);
            }
        }
        Step::Wait(_) => {}
        Step::Rebuild => {
            *space = rebuilt(space);
            for cell in &mut table.cells {
                if matches!(cell, Cell::Cooling(_)) {
                    *cell = Cell::Free;
                }
            }
        }
    }
}

fn compare_exact(cell: &mut Cell, got: Result<IpAddr, LeaseReject>, address: IpAddr, owner: &str) {
    let holder = match cell {
        Cell::Free | Cell::Cooling(_) => {
            assert_eq!(got, Ok(address));
            *cell = Cell::Held(owner.to_owned());
            return;
        }
        Cell::Fixed => {
            assert!(matches!(got, Err(LeaseReject::Taken { .. })));
            return;
        }
        Cell::Held(by) => Holder::Owner(by.clone()),
        Cell::Leaving(by) => Holder::Leaving(by.clone()),
    };
    assert_eq!(got, Err(LeaseReject::Taken { address, holder }));
}

fn rebuilt(space: &Space) -> Space {
    let mut again = Space::new(COOLDOWN_MS);
    for pool in space.pools() {
        again.adopt_pool(pool.owner(), pool.spec().clone()).unwrap();
        for (address, lease) in pool.leases() {
            let owner = lease.owner.clone();
            let record = LeaseRecord {
                address,
                owner,
                state: lease.state,
            };
            again.adopt_lease(pool.subnet(), record).unwrap();
        }
    }
    again
}

fn check_usage(space: &Space, table: &Table, spec: &PoolSpec) {
    let usage = space.pool(spec.subnet).unwrap().usage();
    let count = |want: fn(&Cell) -> bool| table.cells.iter().filter(|c| want(c)).count();
    assert_eq!(usage.held, count(|c| matches!(c, Cell::Held(_))));
    assert_eq!(usage.leaving, count(|c| matches!(c, Cell::Leaving(_))));
    let open = |(cell, automatic): &(&Cell, &bool)| {
        **automatic && matches!(cell, Cell::Free | Cell::Cooling(_))
    };
    let free = table
        .cells
        .iter()
        .zip(&table.automatic)
        .filter(open)
        .count();
    assert_eq!(usage.free, free as u128);
}

proptest! {
    #[test]
    fn a_pool_behaves_as_a_table(spec in specs(), steps in steps()) {
        let mut space = Space::new(COOLDOWN_MS);
        space.adopt_pool("net", spec.clone()).unwrap();
        let mut table = Table::new(&spec);
        let mut now_ms = 0;
        for step in &steps {
            if let Step::Wait(ms) = step {
                now_ms += ms;
            }
            run(&mut space, &mut table, &spec, step, now_ms);
            check_usage(&space, &table, &spec);
        }
    }
}

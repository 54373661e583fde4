use tombolo_netstate::Objects;

use super::scenery::{assert_holds, endpoint, must_apply, network, on_host, plan, run, scope_of};

#[test]
fn damage_is_seen_and_repaired() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        endpoint(&mut wanted, 11, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        let inside = format!("--net={}", kernel.netns_path("sb11").display());
        for damage in [
            "ip link set tv11 down",
            "ip link set tb0 mtu 1400",
            "ip link set tv11 nomaster",
            "ip link set tv11 address 02:aa:aa:aa:aa:aa",
            "ip addr del 10.9.0.1/24 dev tb0",
            "ip addr del fd09::1/64 dev tb0",
            "ip neigh del 10.9.0.11 dev tb0",
            "ip neigh flush dev tb0 nud permanent",
            "bridge fdb del 02:00:00:00:02:0b dev tv11 master",
            "bridge link set dev tv11 flood on",
            "bridge link set dev tv11 flood on mcast_flood on bcast_flood on isolated off hairpin on",
            "sysctl -qw net.ipv6.conf.tv11.disable_ipv6=0",
            "sysctl -qw net.ipv4.ip_forward=0",
            "ip link del tb0",
            "ip link del tv11",
            "in ip link set eth0 down",
            "in ip addr flush dev eth0",
            "in ip route del default",
            "in ip -6 route replace default via fd09::9 dev eth0 proto 84 metric 1024 onlink",
            "in ip link set eth0 address 02:bb:bb:bb:bb:bb",
            "in ip link del eth0",
        ] {
            let words: Vec<&str> = damage.split(' ').collect();
            if words[0] == "in" {
                run("nsenter", &[&[inside.as_str()], &words[1..]].concat());
            } else {
                run(words[0], &words[1..]);
            }
            let mut rounds = 0;
            loop {
                let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
                let repair = plan(&wanted, &seen);
                if repair.is_empty() {
                    break;
                }
                rounds += 1;
                assert!(rounds <= 2, "after `{damage}` still to be done:\n{repair}");
                let report = kernel.apply(&repair);
                assert!(
                    report.is_done(),
                    "`{damage}`: {:?}\n{repair}",
                    report.failure(&repair)
                );
            }
            assert!(rounds > 0, "`{damage}` went unnoticed");
            assert_holds(kernel, &wanted);
        }
    });
}

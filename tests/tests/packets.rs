//! Packets that must arrive, and packets that must not.

use tombolo_tests::Stage;

#[test]
fn two_networks_reach_their_own_the_host_and_the_outside_but_not_each_other() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    stage.ok("network create a --ipv6");
    stage.ok("network create b --ipv6");
    let (a1, a2) = (stage.sandbox("a1", "--network a"), stage.sandbox("a2", "--network a"));
    let b = stage.sandbox("b1", "--network b");
    let (here, far) = (stage.here(), stage.far());
    for family in 0..2 {
        a1.assert_reaches(&a2, a2.addresses[family]);
        a2.assert_reaches(&a1, a1.addresses[family]);
        here.assert_reaches(&a1, a1.addresses[family]);
        a1.assert_reaches(&here, here.addresses[family]);
        a1.assert_reaches(&far, far.addresses[family]);
        let masqueraded = Some(here.addresses[family]);
        assert_eq!(b.tcp(&far, far.addresses[family]), masqueraded);
        assert_eq!(b.udp(&far, far.addresses[family]), masqueraded);
        a1.assert_cut_off(&b, b.addresses[family]);
        b.assert_cut_off(&a2, a2.addresses[family]);
    }
    stage.assert_in_place();
    stage.ok("sandbox rm a1 a2 b1");
    stage.ok("network rm a b");
    stage.assert_traces(&before);
}

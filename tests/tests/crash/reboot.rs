//! The machine starts anew: the kernel has forgotten everything, the disk has not.

use tombolo_api::ErrorCode;
use tombolo_tests::Stage;

use crate::ports::{assert_published, assert_taken, every_form, taken};
use crate::scene::{addresses, assert_in_touch, code, furnish, make_network, runs, start};

/// Takes away all that does not outlive a boot, and gives the node another boot id.
const REBOOT: &str = "
for link in $(ls /sys/class/net); do
    case $(cat /sys/class/net/$link/ifalias) in tombolo:*) ip link del dev $link 2>/dev/null;; esac
done
nft flush ruleset
kill -9 $(cat /run/tombolo/keeper.pid)
echo 22 >/proc/sys/net/ipv4/ip_local_reserved_ports
umount /run/tombolo/netns/* && umount -l /run/tombolo/netns
rm -r /run/tombolo
echo 0 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra
echo 22222222-2222-4222-8222-222222222222 >/run/boot_id
";

#[test]
fn after_a_reboot_networks_exist_and_sandboxes_start_with_their_addresses() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    stage.shell(
        "echo 11111111-1111-4111-8111-111111111111 >/run/boot_id
         mount --bind /run/boot_id /proc/sys/kernel/random/boot_id",
    );
    furnish(&mut stage);
    let free = taken(&stage);
    stage.client().publications_add("p", every_form()).unwrap();
    assert_published(&stage, "p");
    let (known, published) = (addresses(&stage), taken(&stage));
    assert!(published.len() > free.len() + 10, "{published:?}");
    stage.kill().unwrap();
    let running = stage.traces().unwrap();
    stage.shell(REBOOT);
    let bare = stage.traces().unwrap();
    assert!(
        bare.len() + 20 < running.len(),
        "nothing was lost: {bare:#?}"
    );
    start(&mut stage, &[]);
    stage.assert_in_place();
    for name in ["p", "q"] {
        assert!(!runs(&stage, name), "{name} runs after a reboot");
        assert_eq!(stage.inspect(name).netns, None);
    }
    assert_eq!(addresses(&stage), known);
    assert_taken(&stage, &free, "while everything is stopped");
    for name in ["one", "two", "bridge"] {
        let device = stage
            .network(name)
            .device
            .expect("a bridge network has a device");
        stage.shell(&format!("ip link show dev {device} type bridge up"));
    }
    let refused = make_network(&mut stage.client(), "one").unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::NameTaken));
    for name in ["p", "q"] {
        stage.client().sandbox_start(name).unwrap();
    }
    assert_eq!(addresses(&stage), known);
    assert_in_touch(&stage, "p", "q");
    assert_taken(&stage, &published, "after the start");
    assert_published(&stage, "p");
    stage.assert_in_place();
    // Another start in the same boot leaves them running.
    stage.kill().unwrap();
    start(&mut stage, &[]);
    assert!(runs(&stage, "p") && runs(&stage, "q"));
}

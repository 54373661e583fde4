//! What the program has put on a node, in lines that can be compared.

use std::collections::BTreeSet;

use super::{Node, NodeError};

/// Prints everything in a node that the program could leave behind, one thing on a line. Namespaces kept
/// ready have no name in the file system, so they do not show.
const LOOK: &str = "
ip -o link | awk '{
    sub(/@.*|:$/, \"\", $2); up = ($3 ~ /[<,]UP[,>]/) ? \"up\" : \"down\"; on = \"\"; mtu = \"\"
    for (n = 4; n < NF; n++) { if ($n == \"mtu\") mtu = $(n + 1); if ($n == \"master\") on = \" on \" $(n + 1) }
    print \"link\", $2, \"mtu\", mtu, up on
}'
ip -o address | awk '{print \"address\", $2, $4}'
ip -4 route show table all | sed -e 's/ linkdown//' -e 's/^/route /'
ip -6 route show table all | grep -v -e fe80: -e multicast | sed -e 's/ linkdown//' -e 's/^/route /'
ip neigh show nud permanent | sed 's/^/neighbour /'
bridge fdb show | grep static | sed 's/^/fdb /'
nft list ruleset 2>/dev/null | sed -E -e 's/^[ \\t]+//' -e 's/(counter) packets [0-9]+ bytes [0-9]+/\\1/' \
    -e 's/ expires [0-9a-z]+//' -e 's/^elements = \\{//' -e 's/[ \\t}]+$//' | tr ',' '\\n' \
    | sed -E -e 's/^[ \\t]+//' -e 's/^/nft /' | grep -v -x 'nft '
grep -E ' /run/tombolo| /run/netns' /proc/self/mountinfo | awk '{print \"mount\", $5}'
find /run/tombolo -mindepth 1 ! -type s ! -name '*.lock' ! -name keeper.pid \
    ! -path /run/tombolo/sandboxes ! -path /run/tombolo/run 2>/dev/null | sed 's/^/file /'
for key in ipv4/ip_forward ipv6/conf/all/forwarding ipv6/conf/default/forwarding; do
    echo \"sysctl $key $(cat /proc/sys/net/$key)\"
done
processes=$(ps -eo stat=,args=)
echo \"$processes\" | grep -v -e '^Z' -e ' ps -eo' -e 'sh -c' -e 'sleep infinity' -e ' daemon' -e '^[A-Z][^ ]* *tombolo-keeper' | sed -E 's/^[^ ]+ +/process /'
";

impl Node {
    /// Everything on the node that the program could leave behind: links, addresses, routes, neighbours,
    /// rules and their elements, mounts, files of the run directory, sysctls, processes. What two looks
    /// have in common cancels out, whoever made it.
    pub fn traces(&self) -> Result<BTreeSet<String>, NodeError> {
        let looked = self.run(&["sh", "-c", LOOK])?;
        Ok(looked
            .stdout
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect())
    }
}

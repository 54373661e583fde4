//! What is held for containers, before and after.

use std::time::Duration;

use tombolo_lab::node::wait_until;

use crate::scene::Scene;

/// Longest time for everything to be accounted for: what was starting when its engine was killed is missed after three
/// minutes.
pub(crate) const ACCOUNT: Duration = Duration::from_secs(240);

/// Removes what the churn left in the engine, whose own state may need several tries after being killed.
pub(crate) fn tidied(scene: &Scene) {
    let gone = wait_until(ACCOUNT, || {
        let all = scene
            .docker_tries("ps --all --quiet")
            .stdout
            .replace('\n', " ");
        if !all.trim().is_empty() {
            scene.docker_tries(&format!("rm --force {all}"));
            return false;
        }
        let more = scene
            .docker_tries("network ls --quiet --filter name=nc")
            .stdout;
        if !more.trim().is_empty() {
            scene.docker_tries(&format!("network rm {}", more.replace('\n', " ")));
            return false;
        }
        true
    });
    assert!(gone, "{}", scene.docker("ps --all"));
}

/// Everything that our daemon and the kernel hold for containers, in lines.
pub(crate) fn held(scene: &Scene) -> String {
    let links = scene.shell("ip -o link | grep -c -E ': (tv|tp|tb|tl|tu|td)' || true");
    let elements = scene.shell("nft list table inet tombolo | grep -c -E 'publish|: 20' || true");
    let fdb = scene.shell("bridge fdb show | grep -c static || true");
    let neighbours = scene.shell("ip neigh show nud permanent | wc -l");
    let mut doctor = scene
        .ok("doctor")
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    doctor.retain(|line| line.contains("engines"));
    let networks = scene.ok("network ls");
    let sandboxes = scene.ok("sandbox ls");
    // Without their age.
    let sandboxes: Vec<Vec<&str>> = sandboxes
        .lines()
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    let endpoints = scene.ok("endpoint ls");
    format!(
        "{links} links, {elements} elements, {fdb} entries, {neighbours} neighbours\n{doctor:?}\n{networks}\n{sandboxes:?}\n{endpoints}"
    )
}

//! What a process may do: its capabilities and the user it is.

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::{CapSet, Capability, CapsHashSet};

use super::spec::{ProcessSpec, SpecError};

/// Docker's default set: mask `00000000a80425fb`.
const DEFAULT: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// The capabilities a process is allowed: as in Docker, drops come first unless `ALL` is added.
pub(super) fn capability_set(spec: &ProcessSpec) -> Result<BTreeSet<u8>, SpecError> {
    if spec.privileged {
        return Ok(everything());
    }
    let mut allowed: BTreeSet<u8> = DEFAULT.iter().map(Capability::index).collect();
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    if spec.cap_add.iter().any(is_all) {
        allowed = everything();
    }
    if spec.cap_drop.iter().any(is_all) {
        allowed.clear();
    }
    for name in spec.cap_drop.iter().filter(|name| !is_all(name)) {
        allowed.remove(&parse(name)?.index());
    }
    for name in spec.cap_add.iter().filter(|name| !is_all(name)) {
        allowed.insert(parse(name)?.index());
    }
    Ok(allowed)
}

/// Removes from this process' bounding set all but `allowed`; needs `CAP_SETPCAP`.
pub(super) fn bound_capabilities(allowed: &BTreeSet<u8>) -> Result<(), caps::errors::CapsError> {
    // Capabilities newer than the kernel are unknown to it and cannot be dropped.
    for capability in caps::all() {
        let known = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if known && !allowed.contains(&capability.index()) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}

/// Keeps of this process' capabilities those in `allowed`, and lets none be inherited.
///
/// What the kernel has taken already, as by a change of user, stays away.
pub(super) fn keep_capabilities(allowed: &BTreeSet<u8>) -> Result<(), caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted
        .into_iter()
        .filter(|capability| allowed.contains(&capability.index()))
        .collect();
    let held = caps::read(None, CapSet::Effective)?;
    let effective: CapsHashSet = held.intersection(&kept).copied().collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &effective)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn everything() -> BTreeSet<u8> {
    caps::all().iter().map(Capability::index).collect()
}

fn parse(name: &str) -> Result<Capability, SpecError> {
    Capability::from_str(&caps::to_canonical(name))
        .map_err(|_| SpecError::Capability(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(add: &[&str], drop: &[&str]) -> Result<u64, SpecError> {
        let spec = ProcessSpec {
            cap_add: add.iter().map(|&name| name.into()).collect(),
            cap_drop: drop.iter().map(|&name| name.into()).collect(),
            ..ProcessSpec::new("a", vec!["true".into()])
        };
        Ok(capability_set(&spec)?
            .iter()
            .fold(0, |mask, bit| mask | 1 << bit))
    }

    #[test]
    fn the_default_is_dockers() {
        assert_eq!(mask(&[], &[]).unwrap(), 0xa804_25fb);
    }

    #[test]
    fn names_are_added_and_dropped_in_any_spelling() {
        assert_eq!(
            mask(&["net_admin"], &["CAP_NET_RAW"]).unwrap(),
            0xa804_05fb | 1 << 12
        );
        assert_eq!(mask(&["NET_RAW"], &["all"]).unwrap(), 1 << 13);
        assert_eq!(mask(&["ALL"], &["SYS_ADMIN"]).unwrap() & 1 << 21, 0);
        assert_eq!(
            mask(&["FLY"], &[]),
            Err(SpecError::Capability("FLY".into()))
        );
    }
}

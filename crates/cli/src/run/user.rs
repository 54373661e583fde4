//! Who a process runs as: passwd(5) and group(5), read from the files the process itself sees.

use std::path::PathBuf;
use std::{fs, io};

/// Numbers and home of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: PathBuf,
}

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    #[error("no user {0:?} in /etc/passwd; give a number instead")]
    NoUser(String),
    #[error("no group {0:?} in /etc/group; give a number instead")]
    NoGroup(String),
    #[error("cannot read {0}")]
    Read(&'static str, #[source] io::Error),
}

/// Looks `uid[:gid]` or `name[:group]` up in `/etc/passwd` and `/etc/group`.
pub(super) fn find_user(wanted: Option<&str>) -> Result<User, UserError> {
    resolve(wanted, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn read(path: &'static str) -> Result<String, UserError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(UserError::Read(path, error)),
    }
}

fn resolve(wanted: Option<&str>, passwd: &str, group: &str) -> Result<User, UserError> {
    let wanted = wanted.filter(|text| !text.is_empty()).unwrap_or("0");
    let (user, explicit_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let number = user.parse::<u32>().ok();
    let record = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 6
                && (fields[0] == user || number.is_some() && fields[2].parse().ok() == number)
        });
    let field = |index: usize| record.as_ref().map(|fields| fields[index]);
    let uid = field(2).and_then(|uid| uid.parse().ok()).or(number);
    let uid = uid.ok_or_else(|| UserError::NoUser(user.to_owned()))?;
    let own_gid = field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0);
    let (gid, groups) = match explicit_group {
        Some(name) => (find_group(name, group)?, Vec::new()),
        None => (
            own_gid,
            field(0).map_or_else(Vec::new, |name| memberships(name, group)),
        ),
    };
    let home = field(5).filter(|home| home.starts_with('/')).unwrap_or("/");
    Ok(User {
        uid,
        gid,
        groups,
        home: home.into(),
    })
}

fn find_group(name: &str, group: &str) -> Result<u32, UserError> {
    let named = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut matching = named.filter(|fields| fields.len() >= 3 && fields[0] == name);
    let found = matching.find_map(|fields| fields[2].parse().ok());
    found
        .or_else(|| name.parse().ok())
        .ok_or_else(|| UserError::NoGroup(name.to_owned()))
}

fn memberships(name: &str, group: &str) -> Vec<u32> {
    let fields = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let member = fields.filter(|f| f.len() >= 4 && f[3].split(',').any(|user| user == name));
    member.filter_map(|fields| fields[2].parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\ndisk:x:6:bob,ann\naudio:x:29:ann\n";

    fn find(text: &str) -> User {
        resolve(Some(text), PASSWD, GROUP).unwrap()
    }

    #[test]
    fn names_and_numbers_meet_the_same_record() {
        let ann = User {
            uid: 1000,
            gid: 1001,
            groups: vec![6, 29],
            home: "/home/ann".into(),
        };
        assert_eq!(find("ann"), ann);
        assert_eq!(find("1000"), ann);
        assert_eq!(
            resolve(None, PASSWD, GROUP).unwrap().home,
            PathBuf::from("/root")
        );
    }

    #[test]
    fn an_explicit_group_replaces_all_others() {
        assert_eq!((find("ann:disk").gid, find("ann:disk").groups), (6, vec![]));
        assert_eq!(
            find("77:88"),
            User {
                uid: 77,
                gid: 88,
                groups: vec![],
                home: "/".into()
            }
        );
    }

    #[test]
    fn unknown_names_are_refused_and_unknown_numbers_taken() {
        assert!(matches!(
            resolve(Some("eve"), PASSWD, GROUP),
            Err(UserError::NoUser(_))
        ));
        assert!(matches!(
            resolve(Some("ann:x"), PASSWD, GROUP),
            Err(UserError::NoGroup(_))
        ));
        assert_eq!(find("77").gid, 0);
        assert_eq!(resolve(Some("5"), "", "").unwrap().uid, 5);
    }
}

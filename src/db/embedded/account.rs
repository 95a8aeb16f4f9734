//! The user of the operating system that runs Postgres: never root, which it refuses.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Uid, User};
use tokio::process::Command;

use super::failure;
use crate::error::Error;

/// The recipient to ask for when root starts a new cluster, in this order.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The user that owns a cluster and runs its postmaster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    name: String,
    /// The ids to change to; `None` if it is the user of this process.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// The user for the cluster in `pgdata`: the user of this process, except for root: then the owner of the folder, or, if there is none
    /// yet, `postgres` or `nobody`.
    pub(super) fn for_cluster(pgdata: &Path) -> Result<Account, Error> {
        let own = Uid::effective();
        match (fs::metadata(pgdata), own.is_root()) {
            (Ok(folder), true) if folder.uid() == 0 => Err(failure(
                format!("`{}` belongs to root", pgdata.display()),
                "Postgres does not run as root; give the folder and all in it to an unprivileged user (chown -R)",
            )),
            (Ok(folder), true) => {
                Ok(Account { name: name_of(folder.uid()), ids: Some((folder.uid(), folder.gid())) })
            }
            (Ok(folder), false) if folder.uid() != own.as_raw() => Err(failure(
                format!("`{}` belongs to `{}`", pgdata.display(), name_of(folder.uid())),
                "start as that user or as root, or choose another data folder",
            )),
            (_, false) => Ok(Account { name: name_of(own.as_raw()), ids: None }),
            (Err(_), true) => Account::unprivileged(),
        }
    }

    fn unprivileged() -> Result<Account, Error> {
        UNPRIVILEGED
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Account {
                name: user.name,
                ids: Some((user.uid.as_raw(), user.gid.as_raw())),
            })
            .ok_or_else(|| {
                failure(
                    "Postgres does not run as root",
                    "and there is neither a user `postgres` nor a user `nobody` to run it as",
                )
            })
    }

    /// The user's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The user's id.
    pub(super) fn uid(&self) -> u32 {
        self.ids.map_or_else(|| Uid::effective().as_raw(), |(uid, _)| uid)
    }

    /// Gives a file or folder to the user.
    pub(super) fn give(&self, path: &Path) -> Result<(), Error> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(|cause| {
            failure(
                format!("`{}` cannot be given to the user `{}`", path.display(), self.name),
                cause,
            )
        })
    }

    /// A command that runs as the user, in `folder`, in a process group of its own, so that Ctrl-C in a terminal does not reach it, and
    /// without what the environment says about other Postgres servers.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).process_group(0).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env_remove("LANGUAGE").env("LC_ALL", "C").env("TZ", "UTC");
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Returns whether the user may enter a folder; every folder above it counts.
    pub(super) async fn can_enter(&self, folder: &Path) -> bool {
        if self.ids.is_none() {
            return true;
        }
        let mut command = self.command(Path::new("/bin/sh"), Path::new("/"));
        command
            .args(["-c", r#"cd -- "$1""#, "sh"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    }
}

fn name_of(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

/// Returns whether this process may change to another user.
pub(super) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Returns whether a folder belongs to `uid` and is closed to everybody else.
pub(super) fn is_private(folder: &Path, uid: u32) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|folder| folder.is_dir() && folder.uid() == uid && folder.mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_cluster_never_runs_as_root() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::for_cluster(&folder.path().join("postgres")).unwrap();
        assert_ne!(account.uid(), 0);
        assert!(is_root() || account.ids.is_none());
    }

    #[test]
    fn a_cluster_is_run_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let found = Account::for_cluster(folder.path());
        if is_root() {
            assert!(found.unwrap_err().message().contains("belongs to root"));
            chown(folder.path(), Some(12345), Some(12345)).unwrap();
            assert_eq!(
                Account::for_cluster(folder.path()).unwrap(),
                Account { name: "12345".to_owned(), ids: Some((12345, 12345)) }
            );
        } else {
            assert_eq!(found.unwrap().uid(), Uid::effective().as_raw());
        }
    }

    #[tokio::test]
    async fn an_unprivileged_user_is_kept_out_of_a_private_folder_of_root() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let account = Account::for_cluster(&folder.path().join("postgres")).unwrap();
        assert_eq!(account.can_enter(folder.path()).await, !is_root());
        assert!(account.can_enter(Path::new("/")).await);
    }
}

//! Where a cluster and its socket are: in the data folder, but for two cases in which they cannot be.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::account::{Account, is_private, is_root};
use super::failure;
use crate::error::Error;

/// Where root keeps a cluster whose user cannot reach the data folder.
const SHARED_HOME: &str = "/var/lib/offboard";

/// The folder of a cluster.
const CLUSTER: &str = "postgres";

/// The longest path of a Unix socket in bytes: `sizeof(sockaddr_un.sun_path)` less the closing zero byte.
const LONGEST_SOCKET_PATH: usize = 107;

/// The name of the socket, as Postgres makes it of the port.
const SOCKET: &str = ".s.PGSQL.5432";

/// The folder in which a cluster, its password, its log and its socket are, and the user that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// The folder's path, absolute and without symbolic links.
    pub(super) folder: PathBuf,
    /// The user who runs the cluster.
    pub(super) account: Account,
}

/// Makes the data folder if need be, and returns its path, absolute and without symbolic links.
pub(super) fn make_data_dir(data_dir: &Path) -> Result<PathBuf, Error> {
    let problem =
        |cause| failure(format!("The data folder `{}` cannot be used", data_dir.display()), cause);
    // Root lets the cluster's user pass through, but not list what is there.
    let mode = if is_root() { 0o711 } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(data_dir).map_err(problem)?;
    let folder = data_dir.canonicalize().map_err(problem)?;
    let permissions = fs::metadata(&folder).map_err(problem)?.permissions().mode();
    if is_root() && permissions & 0o011 != 0o011 {
        fs::set_permissions(&folder, Permissions::from_mode(permissions | 0o011))
            .map_err(problem)?;
    }
    Ok(folder)
}

/// Returns whether a data folder has a cluster, be it that it is kept elsewhere.
pub(super) fn has_cluster(data_dir: &Path) -> bool {
    [data_dir.to_owned(), data_dir.join("home")].iter().any(|folder| folder.join(CLUSTER).exists())
}

impl Home {
    /// The home of the cluster of a data folder: the folder itself, or, where the cluster's user cannot reach that (typically a folder
    /// below `/root`), a new folder below `/var/lib/offboard`, to which `home` in the data folder then points.
    ///
    /// Only for the holder of the folder's gate.
    pub(super) async fn of(data_dir: &Path) -> Result<Home, Error> {
        let link = data_dir.join("home");
        if let Ok(folder) = link.canonicalize() {
            let account = Account::for_cluster(&folder.join("postgres"))?;
            return Ok(Home { folder, account });
        }
        let account = Account::for_cluster(&data_dir.join("postgres"))?;
        if account.can_enter(data_dir).await {
            return Ok(Home { folder: data_dir.to_owned(), account });
        }
        let folder = Path::new(SHARED_HOME).join(random_name());
        let problem = |cause| {
            let sentence = format!(
                "The user `{}`, as whom Postgres runs, cannot reach `{}`, and `{}` cannot be used in its place; choose another data folder",
                account.name(),
                data_dir.display(),
                folder.display()
            );
            failure(sentence, cause)
        };
        DirBuilder::new().recursive(true).mode(0o711).create(&folder).map_err(problem)?;
        if !account.can_enter(&folder).await {
            return Err(problem(std::io::ErrorKind::PermissionDenied.into()));
        }
        // The target of an older link with that name no longer exists.
        let _ = fs::remove_file(&link);
        symlink(&folder, &link).map_err(problem)?;
        tracing::warn!(
            "the user `{}`, as whom Postgres runs, cannot reach `{}`: the cluster is kept in `{}`",
            account.name(),
            data_dir.display(),
            folder.display()
        );
        Ok(Home { folder, account })
    }

    /// The folder of the cluster, `PGDATA`.
    pub(super) fn pgdata(&self) -> PathBuf {
        self.folder.join(CLUSTER)
    }

    /// The file with the password.
    pub(super) fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }

    /// The log of the cluster.
    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// The folder of the socket, made if need be: `run`, or, where that would make the socket's path too long, a folder with a random
    /// name below `/tmp`, to which the symbolic link `socket` points. The name is random so that nobody can be there first.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, Error> {
        let plain = self.folder.join("run");
        if socket_path(&plain).as_os_str().len() <= LONGEST_SOCKET_PATH {
            self.make_private(&plain)?;
            return Ok(plain);
        }
        let link = self.folder.join("socket");
        if let Ok(folder) = fs::read_link(&link)
            && is_private(&folder, self.account.uid())
        {
            return Ok(folder);
        }
        let folder = Path::new("/tmp").join(format!("offboard-{}", random_name()));
        self.make_private(&folder)?;
        let _ = fs::remove_file(&link);
        symlink(&folder, &link)
            .map_err(|cause| failure(format!("`{}` cannot be made", link.display()), cause))?;
        Ok(folder)
    }

    /// Makes a folder that only the cluster's user may use, unless it is there.
    pub(super) fn make_private(&self, folder: &Path) -> Result<(), Error> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => self.account.give(folder),
            Err(_) if is_private(folder, self.account.uid()) => Ok(()),
            Err(cause) => Err(failure(
                format!(
                    "`{}` cannot be made for the user `{}` alone",
                    folder.display(),
                    self.account.name()
                ),
                cause,
            )),
        }
    }
}

/// The path of the socket in its folder.
pub(super) fn socket_path(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

/// 16 hexadecimal digits.
pub(super) fn random_name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(folder: &Path) -> Home {
        fs::set_permissions(folder, Permissions::from_mode(0o711)).unwrap();
        Home {
            folder: folder.to_owned(),
            account: Account::for_cluster(&folder.join("postgres")).unwrap(),
        }
    }

    #[test]
    fn the_socket_is_in_the_home_where_its_path_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        assert_eq!(home.socket_dir().unwrap(), folder.path().join("run"));
        assert!(is_private(&folder.path().join("run"), home.account.uid()));
        assert_eq!(home.socket_dir().unwrap(), folder.path().join("run"));
    }

    #[test]
    fn the_socket_of_a_long_path_has_a_private_folder_that_is_found_again_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("a".repeat(120));
        fs::create_dir(&long).unwrap();
        let home = home(&long);
        let first = home.socket_dir().unwrap();
        assert!(socket_path(&first).as_os_str().len() <= LONGEST_SOCKET_PATH);
        assert!(is_private(&first, home.account.uid()));
        assert_eq!(home.socket_dir().unwrap(), first);

        fs::set_permissions(&first, Permissions::from_mode(0o777)).unwrap();
        let second = home.socket_dir().unwrap();
        assert_ne!(second, first, "a folder that others may write to is not trusted");
        fs::remove_dir(&first).unwrap();
        fs::remove_dir(&second).unwrap();
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let taken = folder.path().join("run");
        fs::create_dir(&taken).unwrap();
        fs::set_permissions(&taken, Permissions::from_mode(0o755)).unwrap();
        assert!(home.socket_dir().is_err());
    }
}

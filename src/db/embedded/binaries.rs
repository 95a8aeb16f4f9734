//! Where the machine's Postgres is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::failure;
use crate::error::Error;

/// The major versions that the SQL is tested on.
const SUPPORTED: RangeInclusive<u32> = 15..=18;

/// The packages to install, if there is no Postgres.
const INSTALL: &str = "install Postgres 15 to 18 (on Debian and Ubuntu: apt-get install postgresql), or give a --database-url";

/// The folders in which Postgres' binaries may be, in order of preference.
#[derive(Clone, Debug)]
pub struct Search {
    folders: Vec<PathBuf>,
}

impl Search {
    /// Searches only these folders.
    pub fn in_folders(folders: Vec<PathBuf>) -> Self {
        Search { folders }
    }

    /// Searches where Postgres usually is: what `pg_config --bindir` says, Debian's `/usr/lib/postgresql/*/bin`, and `PATH`.
    pub async fn system() -> Self {
        let mut folders = Vec::new();
        if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await
            && output.status.success()
        {
            folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        }
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("bin")));
        folders.extend(
            std::env::var_os("PATH")
                .iter()
                .flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>()),
        );
        Search { folders }
    }

    /// The binaries for a cluster of the major version `cluster`, or, for a cluster yet to be made, the newest that are supported.
    pub(super) async fn find(&self, cluster: Option<u32>) -> Result<Binaries, Error> {
        let mut found = Vec::new();
        for folder in &self.folders {
            found.extend(Binaries::in_folder(folder).await);
        }
        let versions: BTreeSet<u32> = found.iter().map(|binaries| binaries.major).collect();
        let wanted =
            |major: u32| cluster.map_or(SUPPORTED.contains(&major), |cluster| cluster == major);
        // The first of those with the highest version: `max_by_key` would return the last.
        let best = found
            .into_iter()
            .rev()
            .filter(|binaries| wanted(binaries.major))
            .max_by_key(|binaries| binaries.major);
        best.ok_or_else(|| {
            let have = versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            match cluster {
                Some(cluster) if versions.is_empty() => failure(
                    format!("The data folder contains a cluster of Postgres {cluster}, and no Postgres server was found on this machine"),
                    format!(
                        "install Postgres {cluster} (on Debian and Ubuntu: apt-get install postgresql-{cluster}), or give a --database-url"
                    ),
                ),
                Some(cluster) => failure(
                    format!("The data folder contains a cluster of Postgres {cluster}, and this machine has Postgres {have}"),
                    format!("install postgresql-{cluster}, or choose another data folder and move the data with pg_dump"),
                ),
                None if versions.is_empty() => failure("No Postgres server was found on this machine", INSTALL),
                None => failure(format!("This machine has Postgres {have}, which is not supported"), INSTALL),
            }
        })
    }
}

/// A folder with Postgres' server binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    async fn in_folder(folder: &Path) -> Option<Binaries> {
        if !folder.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(folder.join("postgres")).arg("--version").output().await.ok()?;
        let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
        Some(Binaries { folder: folder.to_owned(), major })
    }

    /// The path of one of them.
    pub(super) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.join(name.as_ref())
    }
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, and `18beta1` as well.
fn major_version(line: &str) -> Option<u32> {
    let version = line.strip_prefix("postgres (PostgreSQL) ")?;
    let digits =
        version.find(|character: char| !character.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn install(folder: &Path, version: &str) -> PathBuf {
        let bin = folder.join(version);
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("initdb"), "").unwrap();
        fs::write(
            bin.join("postgres"),
            format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"),
        )
        .unwrap();
        fs::set_permissions(bin.join("postgres"), fs::Permissions::from_mode(0o755)).unwrap();
        bin
    }

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_version("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(major_version("pg_config (PostgreSQL) 15.18"), None);
    }

    #[tokio::test]
    async fn a_new_cluster_gets_the_newest_supported_version_and_an_old_one_its_own() {
        let machine = tempfile::tempdir().unwrap();
        let folders: Vec<PathBuf> = ["14.9", "15.18", "17.2", "19.0"]
            .iter()
            .map(|version| install(machine.path(), version))
            .collect();
        let search = Search::in_folders(folders.clone());
        assert_eq!(search.find(None).await.unwrap().folder, folders[2]);
        assert_eq!(search.find(Some(15)).await.unwrap().folder, folders[1]);
        let missing = search.find(Some(16)).await.unwrap_err();
        assert!(
            missing
                .message()
                .contains("a cluster of Postgres 16, and this machine has Postgres 14, 15, 17, 19"),
            "{missing}"
        );
    }

    #[tokio::test]
    async fn no_postgres_is_reported_with_what_to_install() {
        let error = Search::in_folders(vec!["/nonexistent".into()]).find(None).await.unwrap_err();
        assert!(error.message().contains("apt-get install postgresql"), "{error}");
        let machine = tempfile::tempdir().unwrap();
        let old = install(machine.path(), "9.6.24");
        let error = Search::in_folders(vec![old]).find(None).await.unwrap_err();
        assert!(error.message().contains("has Postgres 9, which is not supported"), "{error}");
    }
}

//! Advisory locks on files, which the kernel gives back when their process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::failure;
use crate::error::Error;

/// A lock on a file, until it is dropped. It is not passed on to child processes.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock for this holder alone, or returns that somebody else has it.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Lock>, Error> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Lock { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, cause)) => {
                Err(failure(format!("`{}` cannot be locked", path.display()), cause))
            }
        }
    }

    /// Takes the lock for this holder alone, waiting for it at most `patience`.
    pub(super) async fn exclusive(path: &Path, patience: Duration) -> Result<Lock, Error> {
        let start = Instant::now();
        loop {
            if let Some(lock) = Lock::try_exclusive(path)? {
                return Ok(lock);
            }
            if start.elapsed() > patience {
                return Err(failure(
                    format!("`{}` is locked", path.display()),
                    format!(
                        "another process has been starting or stopping the embedded Postgres for {} s",
                        patience.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes the lock together with any number of others, and returns whether there were none. No exclusive holder may keep it for long.
    pub(super) fn shared(path: &Path) -> Result<(Lock, bool), Error> {
        let alone = Lock::try_exclusive(path)?.is_some();
        let file = Flock::lock(open(path)?, FlockArg::LockShared).map_err(|(_, cause)| {
            failure(format!("`{}` cannot be locked", path.display()), cause)
        })?;
        Ok((Lock { _file: file }, alone))
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|cause| failure(format!("`{}` cannot be opened", path.display()), cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_lock_is_refused_while_another_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::try_exclusive(&path).unwrap();
        assert!(lock.is_some());
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(lock);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn the_first_of_many_shared_holders_learns_that_it_is_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (first, alone) = Lock::shared(&path).unwrap();
        assert!(alone);
        let (second, alone) = Lock::shared(&path).unwrap();
        assert!(!alone);
        drop(first);
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(second);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }
}

//! How the allocator of glibc keeps freed memory.
//!
//! By itself it makes an arena for each thread, up to eight for each core, takes large blocks from them once some were freed, and gives
//! little of it back: after a peak a service stays as large as it was. It reads its settings from the environment alone, before `main`; so
//! a service that has none starts itself once more with these. They were chosen by measurement
//! ([why](../../docs/adr/0028-one-memory-for-bodies.md)).

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Few arenas, and large blocks are mapped for themselves and unmapped when they are freed.
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "4"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Starts the process anew with the settings, unless the environment has any of them, or `GLIBC_TUNABLES`. Returns where there is nothing to do or
/// it cannot be done: the service then runs as it is.
pub fn settle() {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) || is_settled() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(binary)) = (arguments.next(), std::env::current_exe()) else { return };
    // Only returns if it fails.
    let _ = Command::new(binary).arg0(name).args(arguments).envs(SETTINGS).exec();
}

fn is_settled() -> bool {
    SETTINGS
        .iter()
        .map(|(name, _)| *name)
        .chain(["GLIBC_TUNABLES"])
        .any(|name| std::env::var_os(name).is_some())
}

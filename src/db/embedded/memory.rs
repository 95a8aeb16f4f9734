//! How much memory the machine has for a cluster.

use std::fs;

/// The initial memory where little is known of the machine, and the most that is taken without being asked to, in MiB.
const LEAST: u64 = 128;
const MOST: u64 = 1024;

/// How large `shared_buffers` shall be, in MiB: an eighth of the memory, since the cluster is not alone.
pub(super) fn shared_buffers() -> u64 {
    share(usable(|file| fs::read_to_string(file).ok()))
}

fn share(bytes: Option<u64>) -> u64 {
    bytes.map_or(LEAST, |bytes| (bytes >> 23).clamp(LEAST, MOST))
}

/// The memory of the machine, or of its control group where that has less.
fn usable(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    // By cgroup v2 and v1; `max` is not a number.
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let groups = groups.iter().filter_map(|file| read(file)?.trim().parse::<u64>().ok());
    machine.into_iter().chain(groups.filter(|limit| *limit > 0)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_takes_an_eighth_of_what_there_is() {
        let machine = |kib: u64, group: &'static str| {
            usable(move |file| match file {
                "/proc/meminfo" => {
                    Some(format!("MemTotal:       {kib} kB\nMemFree:        1 kB\n"))
                }
                "/sys/fs/cgroup/memory.max" => Some(group.to_owned()),
                _ => None,
            })
        };
        assert_eq!(share(machine(4 << 20, "max\n")), 512);
        assert_eq!(
            share(machine(4 << 20, "2147483648\n")),
            256,
            "a container has what it was given"
        );
        assert_eq!(share(machine(4 << 20, "0\n")), 512, "a bound of nothing does not bound");
        assert_eq!(
            (
                share(machine(512 << 10, "max")),
                share(machine(64 << 20, "max")),
                share(usable(|_| None))
            ),
            (128, 1024, 128)
        );
    }
}

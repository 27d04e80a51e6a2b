//! How much memory the process may have.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// What the process may have, in bytes: the least of the machine's memory, the limits of its control groups (version 1 and
/// 2), and its limits of address space and data.
pub fn available() -> usize {
    let resources = [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
    let limits = resources.into_iter().flatten().chain(machine()).chain(control_groups());
    limits.min().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
}

fn machine() -> Option<u64> {
    total(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least of the limits of the group that the process is in, and of those around it.
fn control_groups() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let files = groups.lines().filter_map(limit_file);
    files.filter_map(|(root, group, name)| least_limit(Path::new(root), group, name)).min()
}

/// Where the limit of a line of `/proc/self/cgroup` is: the root of the hierarchy, the group, the file's name.
fn limit_file(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    if controllers.is_empty() {
        return Some(("/sys/fs/cgroup", group, "memory.max"));
    }
    let has_memory = controllers.split(',').any(|controller| controller == "memory");
    has_memory.then_some(("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
}

/// In a container the path may name a group that is seen as the root from inside: what cannot be read has no limit.
fn least_limit(root: &Path, group: &str, name: &str) -> Option<u64> {
    let group = Path::new(group.trim_start_matches('/'));
    let limits = group.ancestors().filter_map(|group| fs::read_to_string(root.join(group).join(name)).ok());
    // `max` is no number, and no limit.
    limits.filter_map(|limit| limit.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_at_most_what_the_machine_has() {
        let machine = machine().expect("Linux says so");

        assert!(available() as u64 <= machine);
        assert!(available() > 1 << 20);
    }

    #[test]
    fn reads_the_memory_of_the_machine() {
        assert_eq!(total("MemTotal:       24689404 kB\nMemFree:        1 kB\n"), Some(24_689_404 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn finds_the_limit_of_either_version_of_control_groups() {
        assert_eq!(
            limit_file("0::/system.slice/a.service"),
            Some(("/sys/fs/cgroup", "/system.slice/a.service", "memory.max"))
        );
        assert_eq!(
            limit_file("5:cpu,memory:/a"),
            Some(("/sys/fs/cgroup/memory", "/a", "memory.limit_in_bytes"))
        );
        assert_eq!(limit_file("4:cpu:/a"), None);
    }

    #[test]
    fn takes_the_least_limit_of_a_group_and_those_around_it() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(least_limit(root.path(), "/outer/inner", "memory.max"), None);
        fs::write(root.path().join("outer/memory.max"), "1000\n").unwrap();
        fs::write(root.path().join("memory.max"), "2000\n").unwrap();
        assert_eq!(least_limit(root.path(), "/outer/inner", "memory.max"), Some(1000));
        assert_eq!(least_limit(root.path(), "/seen/from/outside", "memory.max"), Some(2000));
    }
}

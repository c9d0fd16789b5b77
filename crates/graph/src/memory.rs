//! How much memory there is, so that a network that needs more is refused instead of killed.

use crate::Error;

/// Taken for free memory where the system does not tell.
const UNKNOWN: u64 = 1 << 36;

/// Refuses what needs more bytes than are free.
pub(crate) fn afford(what: impl FnOnce() -> String, needed: u64) -> Result<(), Error> {
    let available = available();
    if needed <= available { Ok(()) } else { Err(Error::Memory { what: what(), needed, available }) }
}

/// Bytes that may still be allocated: what the machine has free, or what is left of the limit of its control group.
fn available() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = free_kibibytes(&read("/proc/meminfo")).map_or(UNKNOWN, |kibibytes| kibibytes.saturating_mul(1024));
    // Files of the second version of control groups; there is no limit where the first does not hold a number.
    let number = |path: &str| read(path).trim().parse::<u64>().ok();
    match (number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current")) {
        (Some(most), Some(used)) => machine.min(most.saturating_sub(used)),
        _ => machine,
    }
}

fn free_kibibytes(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_system_is_read() {
        assert_eq!(free_kibibytes("MemTotal:       10 kB\nMemAvailable:    7654 kB\nX: 1\n"), Some(7654));
        assert_eq!(free_kibibytes("MemTotal: 10 kB\n"), None);
        assert!(available() > 1 << 20);
        assert!(afford(|| "x".into(), 1).is_ok() && afford(|| "x".into(), u64::MAX).is_err());
    }
}

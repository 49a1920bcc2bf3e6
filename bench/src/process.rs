//! What the kernel says of a process: CPU time and memory, from `/proc`. Linux only.

use std::fs;
use std::time::Duration;

use crate::failure::Failure;

/// One look at one or several processes, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// User and system time of all threads, also those that ended. Counted in ticks of 10 ms.
    pub(crate) cpu: Duration,
    pub(crate) rss_bytes: u64,
    /// The most the processes ever had resident since they started.
    pub(crate) peak_rss_bytes: u64,
}

impl Sample {
    /// Sums over `pids`.
    pub(crate) fn of(pids: &[u32]) -> Result<Self, Failure> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            let one = Self::of_one(&pid.to_string())?;
            Ok(Self {
                cpu: sum.cpu + one.cpu,
                rss_bytes: sum.rss_bytes + one.rss_bytes,
                peak_rss_bytes: sum.peak_rss_bytes + one.peak_rss_bytes,
            })
        })
    }

    /// The load generator itself.
    pub(crate) fn of_self() -> Result<Self, Failure> {
        Self::of_one("self")
    }

    fn of_one(pid: &str) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path)
                .map_err(|e| Failure::setup(format!("read {path}: {e}; is the process alive?")))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let odd =
            |file: &str| Failure::setup(format!("/proc/{pid}/{file} is not in the form Linux documents"));
        let ticks = cpu_ticks(&stat).ok_or_else(|| odd("stat"))?;
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second();
        Ok(Self {
            cpu: Duration::from_micros(ticks * tick_us),
            rss_bytes: status_bytes(&status, "VmRSS:").ok_or_else(|| odd("status"))?,
            peak_rss_bytes: status_bytes(&status, "VmHWM:").ok_or_else(|| odd("status"))?,
        })
    }
}

/// Fields 14 and 15 of `/proc/PID/stat`. The second field, the name in parentheses, may itself hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut after_name = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || after_name.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
    kilobytes.parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_odd_names() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 123 0 5 0 250 31 0 0 20 0 9 0 77 1000 200";
        assert_eq!(cpu_ticks(stat), Some(281));
        assert_eq!(cpu_ticks("7 (x) S 1"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(status_bytes(status, "VmHWM:"), Some(2048 * 1024));
        assert_eq!(status_bytes(status, "VmRSS:"), Some(1024 * 1024));
        assert_eq!(status_bytes(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_missing_one_is_an_error() {
        let sample = Sample::of_self().unwrap();
        assert!(sample.rss_bytes > 0 && sample.peak_rss_bytes >= sample.rss_bytes / 2);
        let twice = Sample::of(&[std::process::id(), std::process::id()]).unwrap();
        assert!(twice.rss_bytes > sample.rss_bytes);
        assert!(Sample::of(&[u32::MAX]).is_err());
    }
}

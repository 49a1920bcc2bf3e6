//! What the operating system says of this process, under the names that Prometheus' own client libraries use. Read when somebody asks.
//! Memory and open files are read from `/proc`, which other systems than Linux do not have: there these stay 0.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{Gauge, Registry};

pub struct Process {
    cpu: Gauge,
    resident: Gauge,
    addresses: Gauge,
    files: [Gauge; 2],
    files_max: [Gauge; 2],
}

impl Process {
    /// `started_unix_ms`: when the process began, milliseconds since 1970.
    pub fn new(registry: &Registry, started_unix_ms: u64) -> Process {
        let gauge = |name, help| registry.gauge((name, help), &[]);
        gauge("process_start_time_seconds", "When this process began, seconds since 1970.")
            .set(started_unix_ms as f64 / 1_000.0);
        Process {
            // A counter by its nature; but those count whole numbers here.
            cpu: gauge("process_cpu_seconds_total", "Seconds that processors spent on this process."),
            resident: gauge("process_resident_memory_bytes", "Memory of this process that is in use."),
            addresses: gauge("process_virtual_memory_bytes", "Memory that this process has addresses for."),
            files: ["process_open_fds", "os_fd_used"]
                .map(|name| gauge(name, "Files and connections that are open.")),
            files_max: ["process_max_fds", "os_fd_limit"]
                .map(|name| gauge(name, "Files and connections that may be open.")),
        }
    }

    pub fn read(&self) {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        self.cpu.set(spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9);
        if let Some([addresses, resident]) = memory_bytes() {
            self.addresses.set(addresses);
            self.resident.set(resident);
        }
        // Reading the list takes one more, which is not there any more.
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1));
        self.files.iter().for_each(|gauge| gauge.set(open as f64));
        let most = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |most| most as f64);
        self.files_max.iter().for_each(|gauge| gauge.set(most));
    }
}

/// Addresses, and memory in use.
fn memory_bytes() -> Option<[f64; 2]> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = pages.split(' ').map(str::parse::<usize>);
    let mut bytes = || Some((pages.next()?.ok()? * rustix::param::page_size()) as f64);
    Some([bytes()?, bytes()?])
}

//! What only some files may call: a table, each row with the words, the files that may, and what the others do instead.

pub struct Call {
    pub words: &'static [&'static str],
    pub allowed: &'static [&'static str],
    pub instead: &'static str,
}

pub const CALLS: &[Call] = &[
    Call {
        // The disk and the sender of snapshots measure how long their work took, and log lines carry the date: none of it decides
        // what is so.
        words: &["Instant::now", "SystemTime", "clock_gettime"],
        allowed: &[
            "server/src/clock.rs",
            "server/src/logging.rs",
            "server/src/metrics/",
            "server/disk/src/",
            "server/src/raft/network.rs",
            "server/sim/src/member.rs",
            "server/sim/src/main.rs",
            "server/sim/src/time.rs",
            "clients/rust/src/clock.rs",
            "clients/cli/",
            "bench/",
        ],
        instead: "time comes from a `Clock` that is handed in",
    },
    Call {
        words: &["std::fs", "tokio::fs", "File::open", "File::create", "OpenOptions"],
        allowed: &[
            "server/disk/",
            "server/src/data_dir.rs",
            "server/src/logging.rs",
            // A configuration file, for the room that asks for it.
            "server/src/main.rs",
            // What the operating system says of this process.
            "server/src/metrics/process.rs",
            "clients/cli/",
            "bench/",
            "proto/",
        ],
        instead: "files are the disk crate's, behind its `Disk`",
    },
    Call {
        words: &["thread::spawn", "thread::Builder", "thread::sleep"],
        allowed: &["server/disk/", "server/sim/", "server/src/planted.rs", "bench/"],
        instead: "the server's work is tasks, listed at the head of node/mod.rs",
    },
    Call {
        words: &["block_in_place", "block_on"],
        allowed: &[
            "server/src/main.rs",
            // The consensus library asks for it and never calls it.
            "server/src/raft/runtime.rs",
            "server/sim/",
            "clients/cli/src/main.rs",
            "bench/",
        ],
        instead: "one thread serves everybody: use `simulation::blocking`, or a thread of the room below",
    },
    Call { words: &["unsafe_code"], allowed: &["server/sim/src/time.rs"], instead: "safe code" },
    Call {
        words: &["unbounded_channel", "mpsc::channel()"],
        allowed: &[],
        instead: "every queue has a bound",
    },
    Call {
        // The build scripts in proto/ speak to cargo that way.
        words: &["println!", "eprintln!", "print!", "eprint!", "dbg!"],
        allowed: &["server/sim/src/main.rs", "bench/", "proto/", "examples/"],
        instead: "say it in the log, or return it; main.rs writes to standard output itself",
    },
    Call {
        words: &["env::var", "env::args"],
        allowed: &[
            "server/src/main.rs",
            "server/src/planted.rs",
            "clients/cli/",
            "examples/",
            "bench/",
            "proto/",
        ],
        instead: "arguments and environment are handed to `config::read`",
    },
];

//! What `--version` prints. Scripts and test suites parse the first line, so it speaks of the etcd whose API is
//! answered; Tenure's own version follows.

/// The etcd release that clients may take this server for: three plain numbers, as some parse them.
pub const ETCD_COMPATIBILITY_VERSION: &str = "3.6.6";

pub(super) fn text() -> String {
    let arch = go_name_of_arch(std::env::consts::ARCH);
    let os = std::env::consts::OS;
    format!(
        "etcd Version: {ETCD_COMPATIBILITY_VERSION}\n\
         Git SHA: none\n\
         Go Version: none\n\
         Go OS/Arch: {os}/{arch}\n\
         Tenure Version: {}\n\
         License: {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_LICENSE"),
    )
}

fn go_name_of_arch(rust_name: &str) -> &str {
    match rust_name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

//! Turns the services of `proto/` into tonic servers and clients whose messages are those of `tenure-proto`.

#[path = "../sources.rs"]
mod sources;

use std::error::Error;
use std::path::Path;

/// Packages and the modules of `tenure_proto` that hold their messages.
const MESSAGES: [(&str, &str); 8] = [
    (".authpb", "::tenure_proto::authpb"),
    (".etcdserverpb", "::tenure_proto::etcdserverpb"),
    (".grpc.health.v1", "::tenure_proto::health"),
    (".mvccpb", "::tenure_proto::mvccpb"),
    (".tenure.internal", "::tenure_proto::internal"),
    (".tenure.v1", "::tenure_proto::tenure::v1"),
    (".v3electionpb", "::tenure_proto::v3electionpb"),
    (".v3lockpb", "::tenure_proto::v3lockpb"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut compiler = sources::compile(Path::new(".."))?;
    let mut builder = tonic_prost_build::configure();
    for (package, module) in MESSAGES {
        builder = builder.extern_path(package, module);
    }
    builder.compile_fds(compiler.include_source_info(true).file_descriptor_set())?;
    Ok(())
}

//! Turns the `.proto` files into Rust messages and into one encoded descriptor set.

mod sources;

use std::error::Error;
use std::path::Path;

use protox::prost_reflect::prost_types::DescriptorProto;

fn main() -> Result<(), Box<dyn Error>> {
    let mut compiler = sources::compile(Path::new("."))?;

    let mut ours = compiler.include_source_info(true).file_descriptor_set();
    ours.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(name_fields_for_rust);
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(ours)?;

    // Encoded by the compiler: a decoded set would have lost the HTTP rules, which are extensions.
    let everything = compiler.include_source_info(false).include_imports(true).encode_file_descriptor_set();
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin"), everything)?;
    Ok(())
}

/// The wire's `peerURLs` would become `peer_ur_ls`. Only generated code sees the new name; the descriptors keep
/// the wire's.
fn name_fields_for_rust(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if let Some(noun) = field.name().strip_suffix("URLs") {
            field.name = Some(format!("{noun}_urls"));
        }
    }
}

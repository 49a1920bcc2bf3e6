//! gRPC's reflection service, in both of its versions: what services and messages there are, for `grpcurl` and its like. All that
//! clients may call is described, with its HTTP rules, and nothing of what members say to each other.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use tonic_reflection::server::{Builder, v1, v1alpha};

/// Packages that are no client's business.
const PRIVATE: &str = "tenure.internal";
const SOUND: &str = "we made these descriptors";

/// A descriptor set whose files stay as they are encoded: decoding would drop the HTTP rules.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// Encoded once; the library's services borrow from it for ever.
static PUBLIC: LazyLock<Vec<u8>> = LazyLock::new(public);

pub fn current() -> v1::ServerReflectionServer<impl v1::ServerReflection> {
    Builder::configure().register_encoded_file_descriptor_set(&PUBLIC).build_v1().expect(SOUND)
}

/// For clients from before 2023.
pub fn former() -> v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection> {
    Builder::configure().register_encoded_file_descriptor_set(&PUBLIC).build_v1alpha().expect(SOUND)
}

fn public() -> Vec<u8> {
    let mut files = Files::decode(tenure_proto::DESCRIPTORS).expect(SOUND);
    files.files.retain(|file| {
        !FileDescriptorProto::decode(file.as_ref()).expect(SOUND).package().starts_with(PRIVATE)
    });
    files.encode_to_vec()
}

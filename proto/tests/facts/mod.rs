//! An API as a set of facts, one line each, in the words of the tables in `tests/peer/`. It knows how to say what
//! our descriptors hold, and not what is right.

use std::collections::BTreeSet;

use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};
use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, MethodDescriptor, ReflectMessage};

pub type Facts = BTreeSet<String>;

/// The packages that clients see. `tenure.*` and the imports are nobody else's business.
const PACKAGES: [&str; 6] =
    ["authpb", "etcdserverpb", "grpc.health.v1", "mvccpb", "v3electionpb", "v3lockpb"];

/// One way to reach an RPC over HTTP.
pub struct HttpRule {
    pub rpc: String,
    pub verb: String,
    pub path: String,
    pub body: String,
}

/// The facts of a peer's table.
pub fn table(text: &str) -> Facts {
    text.lines().map(str::to_owned).collect()
}

/// The facts of `wanted` that `held` has not.
pub fn missing<'a>(held: &Facts, wanted: &'a Facts) -> Vec<&'a str> {
    wanted.iter().filter(|fact| !held.contains(*fact)).map(String::as_str).collect()
}

/// The facts of our own descriptors.
pub fn ours(pool: &DescriptorPool) -> Facts {
    let mut facts = Facts::new();
    for file in files(pool) {
        let proto = file.file_descriptor_proto();
        for message in &proto.message_type {
            message_facts(file.package_name(), message, &mut facts);
        }
        for an_enum in &proto.enum_type {
            enum_facts(file.package_name(), an_enum, &mut facts);
        }
        for service in file.services() {
            facts.insert(format!("service {}", service.full_name()));
        }
    }
    facts.extend(methods(pool).iter().map(rpc_fact));
    facts.extend(
        http_rules(pool)
            .iter()
            .map(|HttpRule { rpc, verb, path, body }| format!("http {rpc} {verb} {path} body={body}")),
    );
    facts
}

/// Full names of all RPCs, sorted.
pub fn rpcs(pool: &DescriptorPool) -> BTreeSet<String> {
    methods(pool).iter().map(|method| method.full_name().to_owned()).collect()
}

/// Every HTTP rule of every RPC, additional ones included.
pub fn http_rules(pool: &DescriptorPool) -> Vec<HttpRule> {
    let extension = pool.get_extension_by_name("google.api.http").unwrap();
    let mut rules = Vec::new();
    for method in methods(pool) {
        let options = method.options();
        if !options.has_extension(&extension) {
            continue;
        }
        let main = options.get_extension(&extension).as_message().unwrap().clone();
        let additional = main.get_field_by_name("additional_bindings").unwrap().into_owned();
        let additional = additional.as_list().unwrap().iter().map(|rule| rule.as_message().unwrap().clone());
        rules.extend(std::iter::once(main.clone()).chain(additional).map(|rule| http_rule(&method, &rule)));
    }
    rules
}

fn http_rule(method: &MethodDescriptor, rule: &DynamicMessage) -> HttpRule {
    let text = |field: &str| rule.get_field_by_name(field).unwrap().as_str().unwrap().to_owned();
    let pattern = rule.descriptor().oneofs().find(|oneof| oneof.name() == "pattern").unwrap();
    let verb = pattern.fields().find(|field| rule.has_field(field)).unwrap().name().to_owned();
    HttpRule { rpc: method.full_name().to_owned(), path: text(&verb), verb, body: text("body") }
}

fn files(pool: &DescriptorPool) -> impl Iterator<Item = FileDescriptor> {
    pool.files().filter(|file| PACKAGES.contains(&file.package_name()))
}

fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let services = files(pool).flat_map(|file| file.services().collect::<Vec<_>>());
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn message_facts(scope: &str, message: &DescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", message.name());
    facts.insert(format!("message {name}"));
    for field in &message.field {
        facts.insert(field_fact(&name, message, field));
    }
    for inner in &message.nested_type {
        message_facts(&name, inner, facts);
    }
    for an_enum in &message.enum_type {
        enum_facts(&name, an_enum, facts);
    }
}

fn field_fact(message_name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Optional => "optional",
        Label::Required => "required",
        Label::Repeated => "repeated",
    };
    let oneof = field.oneof_index.map(|at| format!(" oneof={}", message.oneof_decl[at as usize].name()));
    format!(
        "field {message_name}.{} {} {label} {}{}",
        field.name(),
        field.number(),
        type_name(field),
        oneof.unwrap_or_default()
    )
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn enum_facts(scope: &str, an_enum: &EnumDescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", an_enum.name());
    facts.insert(format!("enum {name}"));
    for value in &an_enum.value {
        facts.insert(format!("value {name}.{} {}", value.name(), value.number()));
    }
}

fn rpc_fact(method: &MethodDescriptor) -> String {
    let flag = |streams: bool| if streams { "stream " } else { "" };
    format!(
        "rpc {} {}{} -> {}{}",
        method.full_name(),
        flag(method.is_client_streaming()),
        method.input().full_name(),
        flag(method.is_server_streaming()),
        method.output().full_name()
    )
}

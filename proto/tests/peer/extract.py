#!/usr/bin/env python3
"""Writes the tables beside this file: what other people's builds of the etcd API say it is.

Only facts go into a table: names, numbers, types, labels, stream flags, paths. One fact a line, sorted.

Needs, in a virtual environment: grpcio-tools, googleapis-common-protos.
Inputs, unpacked by the package manager of each:
  the Go modules go.etcd.io/etcd/api/v3, go.etcd.io/etcd/server/v3 and, as an include of the first,
  github.com/grpc-ecosystem/grpc-gateway/v2                            (`go mod download -json MODULE@VERSION`)
  the Python packages etcd3, aetcd, grpcio-health-checking              (`pip download --no-deps NAME`, unpacked)

  extract.py go API_DIR SERVER_DIR GATEWAY_DIR   > etcd-VERSION.txt
  extract.py python PACKAGE_DIR                   > NAME-VERSION.txt
"""

import ast
import os
import re
import site
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

PACKAGES = {"etcdserverpb", "mvccpb", "authpb", "v3lockpb", "v3electionpb", "grpc.health.v1"}
# The server's log and on-disk records share the package `etcdserverpb`, but never cross a client's wire.
NOT_THE_CLIENT_API = {"raft_internal.proto", "etcdserver.proto"}

SERIALIZED = re.compile(
    r"""(?:AddSerializedFile\(|serialized_pb=(?:_b\()?)(b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))""", re.S
)

Field = descriptor_pb2.FieldDescriptorProto


def from_go_modules(api, server, gateway):
    """Compiles the .proto files that the Go modules carry."""
    import grpc_tools
    from grpc_tools import protoc
    from google.api import annotations_pb2  # noqa: F401  (so that the http option is decoded)

    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        (root / "etcd").mkdir()
        (root / "etcd" / "api").symlink_to(api)
        (root / "etcd" / "server").symlink_to(server)
        files = [
            "etcd/api/mvccpb/kv.proto",
            "etcd/api/authpb/auth.proto",
            "etcd/api/etcdserverpb/rpc.proto",
            "etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto",
            "etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto",
        ]
        includes = [work, str(Path(grpc_tools.__file__).parent / "_proto"), gateway, *site.getsitepackages()]
        out = root / "set"
        arguments = ["protoc", f"--descriptor_set_out={out}", "--include_imports"]
        arguments += [f"-I{directory}" for directory in includes]
        if protoc.main(arguments + files) != 0:
            sys.exit("extract.py: the modules' .proto files did not compile; is an include missing?")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


def from_python_package(directory):
    """Reads the descriptors serialized inside generated `*_pb2.py` files."""
    files = []
    for path in sorted(Path(directory).rglob("*_pb2.py")):
        literal = SERIALIZED.search(path.read_text())
        if literal:
            # Older generators write a plain string whose characters are the bytes.
            value = ast.literal_eval(literal.group(1))
            serialized = value.encode("latin-1") if isinstance(value, str) else value
            files.append(descriptor_pb2.FileDescriptorProto.FromString(serialized))
    return files


def type_name(field):
    if field.type_name:
        return field.type_name.lstrip(".")
    return Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def message_facts(scope, message):
    name = f"{scope}.{message.name}"
    yield f"message {name}"
    for field in message.field:
        label = Field.Label.Name(field.label).removeprefix("LABEL_").lower()
        oneof = f" oneof={message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else ""
        yield f"field {name}.{field.name} {field.number} {label} {type_name(field)}{oneof}"
    for inner in message.nested_type:
        yield from message_facts(name, inner)
    for enum in message.enum_type:
        yield from enum_facts(name, enum)


def enum_facts(scope, enum):
    yield f"enum {scope}.{enum.name}"
    for value in enum.value:
        yield f"value {scope}.{enum.name}.{value.name} {value.number}"


def service_facts(package, service):
    yield f"service {package}.{service.name}"
    for method in service.method:
        name = f"{package}.{service.name}.{method.name}"
        request, response = method.input_type.lstrip("."), method.output_type.lstrip(".")
        streams = ("stream " if method.client_streaming else "") + request
        streams += " -> " + ("stream " if method.server_streaming else "") + response
        yield f"rpc {name} {streams}"
        yield from http_facts(name, method.options)


def http_facts(name, options):
    extension = next((value for field, value in options.ListFields() if field.full_name == "google.api.http"), None)
    if extension is None:
        return
    for rule in [extension, *extension.additional_bindings]:
        verb = rule.WhichOneof("pattern")
        yield f"http {name} {verb} {getattr(rule, verb)} body={rule.body}"


def main():
    sources = {"go": from_go_modules, "python": from_python_package}
    if len(sys.argv) < 3 or sys.argv[1] not in sources:
        sys.exit(__doc__)
    facts = set()
    for file in sources[sys.argv[1]](*(os.path.abspath(path) for path in sys.argv[2:])):
        if file.package not in PACKAGES or Path(file.name).name in NOT_THE_CLIENT_API:
            continue
        for message in file.message_type:
            facts.update(message_facts(file.package, message))
        for enum in file.enum_type:
            facts.update(enum_facts(file.package, enum))
        for service in file.service:
            facts.update(service_facts(file.package, service))
    print("\n".join(sorted(facts)))


main()

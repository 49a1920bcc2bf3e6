//! What programs ask of a server before they know it: gRPC's health and reflection services, as `grpc_health_probe` and `grpcurl` use
//! them, and systemd's question whether it serves.

#![allow(clippy::unwrap_used)]

#[path = "harness/mod.rs"]
mod harness;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Launch, Server};
use prost::Message;
use prost_reflect::{DescriptorPool, prost_types::FileDescriptorProto};
use tenure_grpc::health::health_client::HealthClient;
use tenure_proto::health::HealthCheckRequest;
use tenure_proto::health::health_check_response::ServingStatus;
use tonic::transport::Channel;
use tonic_reflection::pb::{v1, v1alpha};

const PATIENCE: Duration = Duration::from_secs(30);

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.endpoint()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn health_is_told_until_the_end() {
    let mut server = Server::start();
    let mut client = HealthClient::new(channel(&server).await);
    let all = || HealthCheckRequest { service: String::new() };
    assert_eq!(client.check(all()).await.unwrap().into_inner().status(), ServingStatus::Serving);
    let unknown = HealthCheckRequest { service: "etcdserverpb.KV".to_owned() };
    let refused = client.check(unknown.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "unknown service"));

    let mut of_unknown = client.watch(unknown).await.unwrap().into_inner();
    assert_eq!(of_unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    drop(of_unknown);
    let mut told = client.watch(all()).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    let last = tokio::time::timeout(PATIENCE, told.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    stopped.await.unwrap();
}

#[tokio::test]
async fn services_are_found_by_reflection() {
    let server = Server::start();
    let channel = channel(&server).await;
    let names = services(channel.clone()).await;
    for expected in
        ["etcdserverpb.KV", "tenure.v1.Locks", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected} is missing in {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("tenure.internal")), "{names:?}");

    // As grpcurl does: the file of a service, and whatever it imports, until all is known.
    let mut pool = DescriptorPool::new();
    let mut files = vec![file(channel.clone(), Wanted::Symbol("etcdserverpb.KV")).await.unwrap()];
    let mut at = 0;
    while at < files.len() {
        for import in files[at].dependency.clone() {
            if !files.iter().any(|file| file.name() == import) {
                files.push(file(channel.clone(), Wanted::File(&import)).await.unwrap());
            }
        }
        at += 1;
    }
    pool.add_file_descriptor_protos(files).unwrap();
    let kv = pool.get_service_by_name("etcdserverpb.KV").unwrap();
    let put = kv.methods().find(|method| method.name() == "Put").unwrap();
    assert_eq!(put.input().full_name(), "etcdserverpb.PutRequest");

    let hidden = file(channel, Wanted::Symbol("tenure.internal.Command")).await.unwrap_err();
    assert_eq!(hidden.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn the_former_reflection_answers_as_well() {
    let server = Server::start();
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("{answer:?}")
    };
    assert!(list.service.iter().any(|service| service.name == "etcdserverpb.Lease"));
}

#[test]
fn systemd_hears_that_the_member_serves() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let launch = Launch::alone(Launch::program_under_test(), home.path());
    let mut child = Command::new(&launch.program)
        .args(launch.arguments())
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut message = [0; 64];
    let heard = systemd.recv(&mut message);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&message[..heard.unwrap()], b"READY=1");
}

enum Wanted<'a> {
    Symbol(&'a str),
    File(&'a str),
}

async fn services(channel: Channel) -> Vec<String> {
    use v1::server_reflection_request::MessageRequest::ListServices;
    use v1::server_reflection_response::MessageResponse::ListServicesResponse;
    match ask(channel, ListServices(String::new())).await.unwrap() {
        ListServicesResponse(list) => list.service.into_iter().map(|service| service.name).collect(),
        other => panic!("{other:?}"),
    }
}

async fn file(channel: Channel, wanted: Wanted<'_>) -> Result<FileDescriptorProto, tonic::Status> {
    use v1::server_reflection_request::MessageRequest::{FileByFilename, FileContainingSymbol};
    use v1::server_reflection_response::MessageResponse::FileDescriptorResponse;
    let question = match wanted {
        Wanted::Symbol(name) => FileContainingSymbol(name.to_owned()),
        Wanted::File(name) => FileByFilename(name.to_owned()),
    };
    match ask(channel, question).await? {
        FileDescriptorResponse(files) => {
            Ok(FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

async fn ask(
    channel: Channel,
    question: v1::server_reflection_request::MessageRequest,
) -> Result<v1::server_reflection_response::MessageResponse, tonic::Status> {
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await?;
    let answer = answers.into_inner().message().await?;
    Ok(answer.unwrap().message_response.unwrap())
}

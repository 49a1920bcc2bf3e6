//! A service with several instances, and a consumer that finds them and spreads its work. An instance is found while it lives: it
//! can be drained for a restart without an error anywhere, and one that crashes is out after its time to live.
//!
//! ```text
//! tenure cluster --members 1
//! cargo run --bin service_registry serve web-1
//! cargo run --bin service_registry serve web-2
//! cargo run --bin service_registry consume
//! tenure drain greeter web-1
//! ```

#![allow(clippy::print_stdout)]

use std::time::Duration;

use tenure_client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SERVICE: &str = "greeter";

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:2379".into());
    let client = Client::connect(&endpoints)?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", id] => serve(&client, id).await,
        ["consume"] => consume(&client).await,
        _ => Err("say `serve ID` or `consume`".into()),
    }
}

/// Greets whoever connects, for as long as it runs.
async fn serve(client: &Client, id: &str) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let instance = client.registry().instance(SERVICE, id).endpoint("greet", "127.0.0.1", port);
    // It renews by itself, and registers itself again if the registry forgot it.
    let registered = instance.ttl(Duration::from_secs(3)).register().await?;
    println!("{id}: serving");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (mut connection, _) = accepted?;
                connection.write_all(format!("hello from {id}").as_bytes()).await?;
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    registered.deregister().await?;
    println!("{id}: gone");
    Ok(())
}

/// Asks for a greeting ten times a second, of whoever has the least to do.
async fn consume(client: &Client) -> Outcome {
    let greeters = client.registry().resolve(SERVICE).await?;
    loop {
        match greeters.pick() {
            None => println!("nobody serves"),
            Some(picked) => {
                let endpoint = &picked.registration().endpoints[0];
                match greeting(&endpoint.host, endpoint.port).await {
                    Ok(text) => println!("{text}"),
                    // It crashed, and the registry is about to notice. Ask another.
                    Err(error) => println!("{} failed: {error}", picked.registration().id),
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn greeting(host: &str, port: u32) -> std::io::Result<String> {
    let mut text = String::new();
    TcpStream::connect(format!("{host}:{port}")).await?.read_to_string(&mut text).await?;
    Ok(text)
}

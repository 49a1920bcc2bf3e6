//! How the tests reach the server: `ENDPOINT` names it, for instance `http://127.0.0.1:2379`. The tests share that server, so
//! each keeps to keys below a prefix of its own.

use etcd_client::{Client, Error};

pub async fn connect() -> Result<Client, Error> {
    let endpoint =
        std::env::var("ENDPOINT").expect("ENDPOINT must name a server; `.ci/clients.sh` starts one");
    Client::connect([endpoint], None).await
}

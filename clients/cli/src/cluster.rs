//! The noun `cluster`: several members as processes on one machine, until Ctrl-C. For trying things and for tests by hand; it
//! restarts nobody, so that one can see what happens when a member dies. Its data stays where it is for the next time.

mod member;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_proto::etcdserverpb::StatusRequest;
use tokio::sync::mpsc;

use self::member::{End, Member, News};
use crate::endpoints::endpoint;
use crate::failure::Failure;
use crate::output::say;
use crate::signals::{self, Signals};

const EXAMPLES: &str = "\
Examples:
  tenure cluster
  tenure cluster --members 5 --dir /tmp/five --client-port 12379
  tenure cluster -- --log-level warn --quota-backend-bytes 8589934592";

/// Between the ports of one member and those of the next.
const PORTS_APART: u16 = 10;
/// Lines of log that wait to be printed.
const NEWS_MAX: usize = 1_024;
/// Between two questions whether a member serves yet.
const LOOK: Duration = Duration::from_millis(200);
/// How long members may take to stop.
const STOP_MAX: Duration = Duration::from_secs(30);

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Cluster {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    members: u16,
    /// Where they keep their data, each in a directory of its own; kept for the next time
    #[arg(long, value_name = "DIR", default_value = "tenure-cluster")]
    dir: PathBuf,
    /// The first member's client port; those of the others are 10, 20, ... higher, each peer port one above its client port
    #[arg(long, value_name = "PORT", default_value_t = 2379, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    client_port: u16,
    /// The server's program [default: next to this one, else in PATH]
    #[arg(long, value_name = "PROGRAM")]
    tenured: Option<PathBuf>,
    /// More flags for every member
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

impl Cluster {
    pub async fn run(self) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        self.ports_must_be_free()?;
        let (tell, mut news) = mpsc::channel(NEWS_MAX);
        let mut members = BTreeMap::new();
        for number in 0..self.members {
            let member = Member::start(&self.program(), &name(number), self.arguments(number), tell.clone())?;
            members.insert(name(number), member);
        }
        let mut running = Running { members, colours: std::io::stdout().is_terminal() };
        let ready = all_serve(self.endpoints());
        tokio::pin!(ready);
        let mut announced = false;
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => {
                    let name = signals::name(signal);
                    say(&format!("received {name}: stopping the members; once more to kill them"))?;
                    return running.stop(&mut signals, &mut news).await;
                }
                Some(news) = news.recv() => running.hear(news)?,
                () = &mut ready, if !announced => {
                    announced = true;
                    self.announce()?;
                }
            }
            if running.members.is_empty() {
                return Err(Failure::failed("all members have ended; their last lines say why"));
            }
        }
    }

    /// Said here in one line, and so that nobody else's server is taken for a member that serves.
    fn ports_must_be_free(&self) -> Result<(), Failure> {
        for port in
            (0..self.members).flat_map(|number| [self.client_port(number), self.client_port(number) + 1])
        {
            if let Err(error) = std::net::TcpListener::bind(("127.0.0.1", port)) {
                let text = format!("port {port} cannot be had: {error}; choose another --client-port");
                return Err(Failure::failed(text));
            }
        }
        Ok(())
    }

    fn client_port(&self, number: u16) -> u16 {
        self.client_port + number * PORTS_APART
    }

    /// The server's program, by its path if it is where this one is.
    fn program(&self) -> PathBuf {
        let sibling = || {
            let path = std::env::current_exe().ok()?.with_file_name("tenured");
            path.is_file().then_some(path)
        };
        self.tenured.clone().or_else(sibling).unwrap_or_else(|| "tenured".into())
    }

    fn client_url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.client_port(number))
    }

    fn peer_url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.client_port(number) + 1)
    }

    fn endpoints(&self) -> Vec<String> {
        (0..self.members).map(|number| self.client_url(number)).collect()
    }

    fn arguments(&self, number: u16) -> Vec<String> {
        let (client, peer) = (self.client_url(number), self.peer_url(number));
        let members: Vec<String> =
            (0..self.members).map(|other| format!("{}={}", name(other), self.peer_url(other))).collect();
        let data_dir = self.dir.join(name(number)).display().to_string();
        let flags = [
            ("--name", name(number)),
            ("--data-dir", data_dir),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", members.join(",")),
            ("--log-format", "console".into()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        flags.chain(self.flags.iter().cloned()).collect()
    }

    fn announce(&self) -> Result<(), Failure> {
        let endpoints: Vec<String> =
            self.endpoints().iter().map(|url| url.trim_start_matches("http://").to_owned()).collect();
        let endpoints = endpoints.join(",");
        let members = match self.members {
            1 => "One member serves; its".to_owned(),
            members => format!("{members} members serve; their"),
        };
        say(&format!(
            "\n{members} data is in {}. Try, in another terminal:\n\n  \
             export TENURE_ENDPOINTS={endpoints}\n  \
             tenure endpoint status\n  \
             tenure lock jobs/nightly -- sleep 60\n  \
             tenure snapshot save backup.db\n  \
             etcdctl --endpoints $TENURE_ENDPOINTS put hello world\n\n\
             Ctrl-C stops all that runs here.\n",
            self.dir.display()
        ))
    }
}

/// The members that have not ended yet.
struct Running {
    members: BTreeMap<String, Member>,
    colours: bool,
}

impl Running {
    fn hear(&mut self, news: News) -> Result<(), Failure> {
        match news {
            News::Line { member, line } => {
                let number = member.trim_start_matches('m').parse::<u8>().unwrap_or(0);
                match self.colours {
                    true => say(&format!("\x1b[{}m{member} |\x1b[0m {line}", 31 + number % 6)),
                    false => say(&format!("{member} | {line}")),
                }
            }
            News::Ended { member, end: End(how) } => {
                self.members.remove(&member);
                say(&format!("{member} ended: {how}"))
            }
        }
    }

    /// Asks all to stop and waits for them; kills those that a second signal or the bound finds still there.
    async fn stop(&mut self, signals: &mut Signals, news: &mut mpsc::Receiver<News>) -> Result<(), Failure> {
        self.members.values().for_each(Member::ask_to_stop);
        let bound = tokio::time::sleep(STOP_MAX);
        tokio::pin!(bound);
        let mut killed = false;
        while !self.members.is_empty() {
            tokio::select! {
                biased;
                Some(news) = news.recv() => self.hear(news)?,
                _ = signals.next(), if !killed => killed = self.kill(),
                () = &mut bound, if !killed => killed = self.kill(),
            }
        }
        if killed { Err(Failure::failed("some members had to be killed")) } else { Ok(()) }
    }

    fn kill(&self) -> bool {
        self.members.values().for_each(Member::kill);
        true
    }
}

fn name(number: u16) -> String {
    format!("m{}", number + 1)
}

/// Returns once every member answers and knows a leader.
async fn all_serve(endpoints: Vec<String>) {
    for url in endpoints {
        while !serves(&url).await {
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn serves(url: &str) -> bool {
    let Ok(endpoint) = endpoint(url) else { return false };
    let Ok(channel) = endpoint.connect_timeout(LOOK).timeout(Duration::from_secs(1)).connect().await else {
        return false;
    };
    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await;
    status.is_ok_and(|status| status.into_inner().leader != 0)
}

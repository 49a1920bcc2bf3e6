//! A recording of requests and answers, as text: a line with the request, then the answer's lines, the last with the status.

/// A request and what was answered.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub method: String,
    pub path: String,
    pub body: String,
    pub lines: Vec<String>,
    /// 0: there was no answer.
    pub status: u16,
}

const STATUS: &str = "  -> HTTP ";

impl Exchange {
    pub fn post(path: &str, body: &str) -> Exchange {
        Exchange { method: "POST".into(), path: path.into(), body: body.into(), lines: Vec::new(), status: 0 }
    }

    pub fn get(path: &str) -> Exchange {
        Exchange { method: "GET".into(), ..Exchange::post(path, "") }
    }

    pub fn title(&self) -> String {
        format!("{} {} {}", self.method, self.path, self.body).trim_end().to_owned()
    }

    /// The same request, speaking of the member that runs here.
    pub fn here(&self, peer_port: u16) -> Exchange {
        let body = self.body.replace("127.0.0.1:32380", &format!("127.0.0.1:{peer_port}"));
        Exchange { body, ..self.clone() }
    }
}

/// Without what needs users and roles, from the first of them to their end.
pub fn without_users(exchanges: Vec<Exchange>) -> Vec<Exchange> {
    let users = |exchange: &Exchange| exchange.path == "/v3/auth/enable";
    let first = exchanges.iter().position(users).unwrap();
    let last = exchanges.iter().rposition(|exchange| exchange.path == "/v3/auth/disable").unwrap();
    [&exchanges[..first], &exchanges[last + 1..]].concat()
}

pub fn read(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut ended = true;
    for line in text.lines() {
        if ended {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (method, path, body) = (word(), word(), word());
            exchanges.push(Exchange { method, path, body, lines: Vec::new(), status: 0 });
            ended = false;
            continue;
        }
        let exchange = exchanges.last_mut().unwrap();
        let said = match line.split_once(STATUS) {
            Some((said, status)) => {
                exchange.status = status.split(' ').next().unwrap().parse().unwrap();
                ended = true;
                said
            }
            None => line,
        };
        if !said.trim().is_empty() {
            exchange.lines.push(said.trim().to_owned());
        }
    }
    exchanges
}

//! A txn being put together, line by line.

use std::error::Error;

use bytes::Bytes;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::request;
use super::words::Words;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The txn outermost, then those opened within, each with the branch of the one before that it goes into.
pub struct Building {
    open: Vec<(bool, TxnRequest)>,
}

impl Default for Building {
    fn default() -> Building {
        Building { open: vec![(true, TxnRequest::default())] }
    }
}

impl Building {
    pub fn compare(&mut self, compare: Compare) {
        self.innermost().compare.push(compare);
    }

    pub fn operation(&mut self, success: bool, words: &mut Words) -> Result<()> {
        let name = words.word()?;
        if name == "txn" {
            self.open.push((success, TxnRequest::default()));
            return Ok(());
        }
        let times = words.named("times").map(|word| word.parse::<usize>()).transpose()?;
        let request = match name.as_str() {
            "put" => Some(Request::RequestPut(request::put(words)?)),
            "get" => Some(Request::RequestRange(request::range(words)?)),
            "del" => Some(Request::RequestDeleteRange(request::delete_range(words)?)),
            "nothing" => None,
            _ => return Err(format!("a txn cannot {name}").into()),
        };
        match times {
            None => self.add(success, request),
            Some(times) => {
                (1..=times).for_each(|n| self.add(success, request.clone().map(|it| numbered(it, n))))
            }
        }
        Ok(())
    }

    /// The innermost becomes an operation of the one around it.
    pub fn close(&mut self) -> Result<()> {
        if self.open.len() < 2 {
            return Err("no txn was opened within".into());
        }
        if let Some((success, txn)) = self.open.pop() {
            self.add(success, Some(Request::RequestTxn(txn)));
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<TxnRequest> {
        match (self.open.pop(), self.open.is_empty()) {
            (Some((_, txn)), true) => Ok(txn),
            _ => Err("a txn within was not closed with `end`".into()),
        }
    }

    fn add(&mut self, success: bool, request: Option<Request>) {
        let txn = self.innermost();
        let branch = if success { &mut txn.success } else { &mut txn.failure };
        branch.push(RequestOp { request });
    }

    fn innermost(&mut self) -> &mut TxnRequest {
        &mut self.open.last_mut().expect("the outermost is there until the end").1
    }
}

fn numbered(mut request: Request, n: usize) -> Request {
    let key = match &mut request {
        Request::RequestPut(put) => &mut put.key,
        Request::RequestRange(range) => &mut range.key,
        Request::RequestDeleteRange(delete) => &mut delete.key,
        Request::RequestTxn(_) => return request,
    };
    *key = Bytes::from([&key[..], n.to_string().as_bytes()].concat());
    request
}

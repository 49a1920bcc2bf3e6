//! The verb `txn`: what must hold, what to do then, what to do else, in one revision.

use clap::Args;
use serde_json::{Value, json};
use tenure_client::proto::etcdserverpb::response_op::Response;
use tenure_client::proto::etcdserverpb::{Compare, RequestOp, ResponseOp};
use tenure_client::when::{self, Is};
use tenure_client::{Kv, Outcome};

use crate::endpoints::Endpoints;
use crate::failure::Failure;
use crate::keys::{Guarded, pair_json};
use crate::output::{self, Format, say};

const EXAMPLES: &str = "\
What may be asked: absent(KEY), present(KEY), and value, version, created, changed or lease of (KEY) with =, !=, < or >.
What may be done: put KEY VALUE, get KEY, del KEY, and `get KEY...` or `del KEY...` for all keys that begin so.
Exits with 0 when all that was asked held, with 1 when not.

Examples:
  tenure txn --when 'absent(leader)' --then 'put leader me' --else 'get leader'
  tenure txn --when 'value(state)=ready' --when 'version(state)>3' --then 'put state done' --then 'del jobs/...'";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Txn {
    /// What must hold
    #[arg(long, value_name = "COMPARE")]
    when: Vec<String>,
    /// What to do if all of it holds
    #[arg(long, value_name = "OPERATION")]
    then: Vec<String>,
    /// What to do if not
    #[arg(long = "else", value_name = "OPERATION")]
    otherwise: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    guarded: Guarded,
    #[command(flatten)]
    endpoints: Endpoints,
}

impl Txn {
    pub async fn run(self) -> Result<(), Failure> {
        let kv = self.guarded.kv(&self.endpoints.client()?)?;
        let mut txn = kv.txn();
        for text in &self.when {
            txn = txn.when(compare(text)?);
        }
        for text in &self.then {
            txn = txn.then(operation(&kv, text)?);
        }
        for text in &self.otherwise {
            txn = txn.otherwise(operation(&kv, text)?);
        }
        let outcome = txn.commit().await?;
        self.print(&outcome)?;
        match outcome.succeeded {
            true => Ok(()),
            false => Err(Failure::failed("what was asked did not hold")),
        }
    }

    fn print(&self, outcome: &Outcome) -> Result<(), Failure> {
        if self.output == Format::Json {
            let responses: Vec<Value> = outcome.responses.iter().map(response_json).collect();
            let json = json!({ "succeeded": outcome.succeeded, "revision": outcome.revision, "responses": responses });
            return say(&json.to_string());
        }
        for response in &outcome.responses {
            match &response.response {
                Some(Response::ResponseRange(range)) => {
                    for pair in &range.kvs {
                        say(&format!("{} = {}", output::text(&pair.key), output::text(&pair.value)))?;
                    }
                }
                Some(Response::ResponseDeleteRange(done)) => say(&format!("{} removed", done.deleted))?,
                Some(Response::ResponsePut(_)) => say(&format!("written at revision {}", outcome.revision))?,
                Some(Response::ResponseTxn(_)) | None => {}
            }
        }
        Ok(())
    }
}

fn response_json(response: &ResponseOp) -> Value {
    match &response.response {
        Some(Response::ResponseRange(range)) => {
            json!({ "get": range.kvs.iter().map(pair_json).collect::<Vec<_>>() })
        }
        Some(Response::ResponseDeleteRange(done)) => json!({ "deleted": done.deleted }),
        Some(Response::ResponsePut(_)) => json!({ "put": true }),
        Some(Response::ResponseTxn(_)) | None => Value::Null,
    }
}

fn compare(text: &str) -> Result<Compare, Failure> {
    let wrong =
        || Failure::failed(format!("`{text}` asks nothing that is understood: see `tenure txn --help`"));
    let (what, rest) = text.trim().split_once('(').ok_or_else(wrong)?;
    // The last one, as a key may have some.
    let (key, rest) = rest.rsplit_once(')').ok_or_else(wrong)?;
    if rest.is_empty() {
        return match what {
            "absent" => Ok(when::absent(key)),
            "present" => Ok(when::present(key)),
            _ => Err(wrong()),
        };
    }
    let signs = [("!=", Is::NotEqual), ("=", Is::Equal), ("<", Is::Less), (">", Is::Greater)];
    let found = signs.into_iter().find_map(|(sign, is)| Some((is, rest.trim().strip_prefix(sign)?.trim())));
    let (is, value) = found.ok_or_else(wrong)?;
    let number = || value.parse::<i64>().map_err(|_| wrong());
    Ok(match what {
        "value" => when::value(key, is, value),
        "version" => when::version(key, is, number()?),
        "created" => when::created(key, is, number()?),
        "changed" => when::changed(key, is, number()?),
        "lease" => when::lease(key, is, crate::lease::id(value).map_err(Failure::failed)?),
        _ => return Err(wrong()),
    })
}

fn operation(kv: &Kv, text: &str) -> Result<RequestOp, Failure> {
    let wrong =
        || Failure::failed(format!("`{text}` does nothing that is understood: see `tenure txn --help`"));
    let (verb, rest) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let rest = rest.trim_start();
    match (verb, rest.strip_suffix("...")) {
        ("put", _) => {
            let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
            Ok(kv.put(key, value.trim_start()).into())
        }
        ("get", None) => Ok(kv.get(rest).into()),
        ("get", Some(prefix)) => Ok(kv.get(prefix).prefix().into()),
        ("del", None) => Ok(kv.delete(rest).into()),
        ("del", Some(prefix)) => Ok(kv.delete(prefix).prefix().into()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_are_read_as_they_are_written() {
        assert_eq!(compare("absent(a)").ok(), Some(when::absent("a")));
        assert_eq!(compare(" value(a(b)) = x ").ok(), Some(when::value("a(b)", Is::Equal, "x")));
        assert_eq!(compare("version(a)!=3").ok(), Some(when::version("a", Is::NotEqual, 3)));
        for text in ["", "a", "value(a)", "version(a)=x", "other(a)=1", "absent(a)=1", "value(a)~1"] {
            assert!(compare(text).is_err(), "{text}");
        }
    }
}

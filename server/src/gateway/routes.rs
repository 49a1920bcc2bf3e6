//! Which path is which RPC, read from the rules that the descriptors carry. All of them are POSTs whose body is the whole request.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

/// An RPC as the gateway sees it.
#[derive(Debug)]
pub struct Route {
    /// `/package.Service/Method`.
    pub method: String,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// Whether a request is many messages, and whether an answer is.
    pub asks_many: bool,
    pub answers_many: bool,
}

pub struct Routes {
    routes: Vec<Route>,
    /// From path to the place in `routes`.
    paths: HashMap<String, usize>,
}

/// Where etcd's gateway was before it was finished; old clients still ask there.
const OLD_PREFIX: &str = "/v3beta/";
const PREFIX: &str = "/v3/";

impl Routes {
    pub fn new() -> Routes {
        let pool = DescriptorPool::decode(tenure_proto::DESCRIPTORS).expect("we made these descriptors");
        let rule = pool.get_extension_by_name("google.api.http").expect("its file is compiled in");
        let mut known = Routes { routes: Vec::new(), paths: HashMap::new() };
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let options = method.options();
            if !options.has_extension(&rule) {
                continue;
            }
            let number = known.routes.len();
            known.routes.push(Route {
                method: format!("/{}/{}", method.parent_service().full_name(), method.name()),
                input: method.input(),
                output: method.output(),
                asks_many: method.is_client_streaming(),
                answers_many: method.is_server_streaming(),
            });
            if let Value::Message(rule) = &*options.get_extension(&rule) {
                known.add_paths(rule, number);
            }
        }
        known
    }

    fn add_paths(&mut self, rule: &DynamicMessage, number: usize) {
        if let Some(Value::String(path)) = rule.get_field_by_name("post").as_deref()
            && !path.is_empty()
        {
            self.paths.insert(path.clone(), number);
        }
        let Some(more) = rule.get_field_by_name("additional_bindings") else { return };
        for binding in more.as_list().unwrap_or_default() {
            if let Value::Message(rule) = binding {
                self.add_paths(rule, number);
            }
        }
    }

    pub fn find(&self, path: &str) -> Option<&Route> {
        let number = match path.strip_prefix(OLD_PREFIX) {
            Some(rest) => self.paths.get(&format!("{PREFIX}{rest}")),
            None => self.paths.get(path),
        };
        number.map(|number| &self.routes[*number])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn paths_lead_to_their_methods() {
        let routes = Routes::new();
        let method = |path: &str| routes.find(path).map(|route| route.method.clone());
        assert_eq!(method("/v3/kv/range").unwrap(), "/etcdserverpb.KV/Range");
        assert_eq!(method("/v3beta/kv/range").unwrap(), "/etcdserverpb.KV/Range");
        assert_eq!(method("/v3/kv/lease/revoke").unwrap(), "/etcdserverpb.Lease/LeaseRevoke");
        assert_eq!(method("/v3/cluster/member/list").unwrap(), "/etcdserverpb.Cluster/MemberList");
        assert_eq!(method("/v3alpha/kv/range"), None);
        assert_eq!(method("/v3/kv"), None);
        let watch = routes.find("/v3/watch").unwrap();
        assert!(watch.asks_many && watch.answers_many);
    }
}

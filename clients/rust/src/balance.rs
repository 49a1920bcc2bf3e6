//! To whom the next piece of work goes: two are drawn, and the less busy one gets it. That is nearly as even as asking all, and
//! avoids the herd that runs to whoever is the least busy.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tenure_proto::tenure::v1::{Instance, Registration};

/// What is under way from here, by service and id.
#[derive(Clone, Default)]
pub(crate) struct Balance {
    under_way: Arc<Mutex<HashMap<(String, String), u32>>>,
}

impl Balance {
    pub fn pick(&self, instances: &[Instance]) -> Option<Picked> {
        let able: Vec<&Instance> = instances
            .iter()
            .filter(|instance| instance.weight > 0 && instance.registration.is_some())
            .collect();
        let draw = || rand::random_range(0..able.len());
        let (one, other) = match able.len() {
            0 => return None,
            1 => (able[0], able[0]),
            _ => (able[draw()], able[draw()]),
        };
        let mut under_way = self.under_way.lock();
        let busy = |instance: &Instance| {
            let count = under_way.get(&key(instance)).copied().unwrap_or_default();
            f64::from(count + 1) / f64::from(instance.weight)
        };
        let chosen = if busy(other) < busy(one) { other } else { one };
        *under_way.entry(key(chosen)).or_default() += 1;
        Some(Picked { instance: chosen.clone(), balance: self.clone() })
    }
}

fn key(instance: &Instance) -> (String, String) {
    let registration = instance.registration.as_ref();
    registration.map(|one| (one.service.clone(), one.id.clone())).unwrap_or_default()
}

/// An instance that is sent work, until this is dropped.
pub struct Picked {
    instance: Instance,
    balance: Balance,
}

impl Picked {
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// What it says of itself.
    pub fn registration(&self) -> &Registration {
        self.instance.registration.as_ref().expect("only those that have one are picked")
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        let mut under_way = self.balance.under_way.lock();
        let key = key(&self.instance);
        if let Some(count) = under_way.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, weight: u32) -> Instance {
        let registration = Registration { service: "web".into(), id: id.into(), ..Registration::default() };
        Instance { registration: Some(registration), weight, ..Instance::default() }
    }

    #[test]
    fn work_is_spread_by_weight_and_by_what_is_under_way() {
        let balance = Balance::default();
        assert!(balance.pick(&[]).is_none());
        assert!(balance.pick(&[instance("out", 0)]).is_none());
        let all = [instance("small", 100), instance("large", 300), instance("out", 0)];
        let held: Vec<Picked> = (0..400).filter_map(|_| balance.pick(&all)).collect();
        let large = held.iter().filter(|picked| picked.registration().id == "large").count();
        assert!((250..350).contains(&large), "{large} of 400 went to the one that takes three quarters");
        assert!(held.iter().all(|picked| picked.registration().id != "out"));
        drop(held);
        assert!(balance.under_way.lock().is_empty());
    }
}

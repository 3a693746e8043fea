//! Many verbs as one change: what `ipvsadm -R` sends.

use super::*;
use crate::config::{compile::Steps, model::Service};
use std::collections::{HashMap, HashSet};
use v1::verb::Verb as Kind;

/// The most verbs of one batch: what a director does before it answers is bounded.
pub const MOST_VERBS: usize = 4_096;

/// The most servers in all the states of services that one batch remembers. Beyond it the places of schedulers are
/// carried over as if the rest had been one change.
const MOST_REMEMBERED: usize = 1 << 20;

/// Does the verbs in order. One that is refused changes nothing and holds up none of the others. What they did on the
/// way is for the compiler, which makes of it what they would have done one by one.
pub fn batch(config: &mut Configuration, verbs: &[v1::Verb]) -> (Vec<Result<(), Refusal>>, Steps) {
    let before = config.services.iter().map(|service| service.key).collect();
    let mut batch =
        Batch { config, before, steps: Steps::default(), only_added: HashMap::new(), remembered: 0 };
    let results = verbs.iter().map(|verb| batch.verb(verb)).collect();
    (results, batch.steps)
}

struct Batch<'a> {
    config: &'a mut Configuration,
    /// The services that there were before the batch.
    before: HashSet<ServiceKey>,
    steps: Steps,
    /// The services that the batch has changed, and whether the last change only added to them.
    only_added: HashMap<ServiceKey, bool>,
    remembered: usize,
}

impl Batch<'_> {
    fn verb(&mut self, verb: &v1::Verb) -> Result<(), Refusal> {
        match required(verb.verb.as_ref(), "verb")? {
            Kind::AddService(request) => self.add_service(required(request.service.as_ref(), "service")?),
            Kind::EditService(request) => {
                let service = required(request.service.as_ref(), "service")?;
                self.change(service.key.as_ref(), false, |config| edit_service(config, service))
            }
            Kind::DeleteService(request) => {
                let service = required(request.service.as_ref(), "service")?;
                delete_service(self.config, Some(service))?;
                self.ended(&key(Some(service))?);
                Ok(())
            }
            Kind::Flush(_) => {
                flush(self.config);
                self.steps.between.clear();
                self.only_added.clear();
                Ok(())
            }
            Kind::AddServer(request) => {
                let server = required(request.server.as_ref(), "server")?;
                let service = required(request.service.as_ref(), "service")?;
                self.change(Some(service), true, |config| add_server(config, Some(service), server))
            }
            Kind::EditServer(request) => {
                let server = required(request.server.as_ref(), "server")?;
                let service = required(request.service.as_ref(), "service")?;
                self.change(Some(service), false, |config| edit_server(config, Some(service), server))
            }
            Kind::DeleteServer(request) => {
                let service = required(request.service.as_ref(), "service")?;
                let (address, port) = (&request.address, request.port);
                self.change(Some(service), false, |config| {
                    delete_server(config, Some(service), address, port)
                })
            }
            Kind::SetTimeouts(request) => {
                set_timeouts(self.config, required(request.timeouts.as_ref(), "timeouts")?)
            }
            Kind::AddVirtualAddress(request) => add_virtual_address(self.config, &request.address),
            Kind::DeleteVirtualAddress(request) => delete_virtual_address(self.config, &request.address),
            Kind::AddMark(request) => add_mark(self.config, required(request.rule.as_ref(), "rule")?),
            Kind::DeleteMark(request) => delete_mark(self.config, required(request.rule.as_ref(), "rule")?),
            Kind::AddSourceNat(request) => {
                add_source_nat(self.config, required(request.rule.as_ref(), "rule")?)
            }
            Kind::DeleteSourceNat(request) => {
                delete_source_nat(self.config, required(request.rule.as_ref(), "rule")?)
            }
            Kind::SetPolicies(request) => set_policies(self.config, request),
        }
    }

    fn add_service(&mut self, service: &v1::Service) -> Result<(), Refusal> {
        add_service(self.config, service)?;
        let key = key(service.key.as_ref())?;
        if self.before.contains(&key) {
            self.steps.reborn.insert(key);
        }
        self.only_added.insert(key, true);
        Ok(())
    }

    fn ended(&mut self, key: &ServiceKey) {
        self.steps.between.remove(key);
        self.only_added.remove(key);
    }

    /// Changes a service that stays. Additions in a row are one step, because schedulers take them one by one anyway;
    /// before anything else that follows on another change, what the service has become is remembered.
    fn change(
        &mut self,
        service: Option<&v1::ServiceKey>,
        adds: bool,
        verb: impl FnOnce(&mut Configuration) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let key = key(service)?;
        let goes_on = self.only_added.get(&key).is_none_or(|only_added| adds && *only_added);
        let became = if goes_on { None } else { self.service(&key) };
        verb(self.config)?;
        if let Some(became) = became {
            let size = became.servers.len() + 1;
            if self.remembered + size <= MOST_REMEMBERED {
                self.remembered += size;
                self.steps.between.entry(key).or_default().push(became);
            }
        }
        self.only_added.insert(key, adds);
        Ok(())
    }

    fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.config.services.get(self.config.position(key)?).cloned()
    }
}

fn required<T>(part: Option<T>, field: &str) -> Result<T, Refusal> {
    part.ok_or_else(|| {
        Refusal::invalid(field, format!("the request has no {field}"), "fill it in; `pointsman` does")
    })
}

#[cfg(test)]
mod tests;

//! `pointsman.v1.Lvs`: each verb is one change.

use super::{Context, refused, required, status};
use crate::{
    apply::{InForce, Terms, View},
    config::{
        compile::pending,
        model::{Configuration, Service as Model, policies::forwarding_name},
        slots::DestinationKey,
        wire,
    },
    counters::Totals,
    refusal::{Code, Refusal},
    verbs,
};
use pointsman_proto::v1::{lvs_server::Lvs, *};
use tonic::{Request, Response, Status};

pub(super) struct Service(pub(super) Context);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    fn in_force(&self) -> InForce {
        self.0.control.watch().borrow().clone()
    }

    async fn change(
        &self,
        verb: impl FnOnce(&mut Configuration) -> Result<(), Refusal> + Send + 'static,
    ) -> Answer<ChangeResponse> {
        let change = |config: &mut Configuration| verb(config).map_err(Into::into);
        let applied = self.0.control.change(Terms::default(), change).await.map_err(status)?;
        Ok(Response::new(ChangeResponse { generation: applied.generation, warnings: applied.warnings }))
    }
}

#[tonic::async_trait]
impl Lvs for Service {
    async fn add_service(&self, request: Request<AddServiceRequest>) -> Answer<ChangeResponse> {
        let service = required(request.into_inner().service, "service")?;
        self.change(move |config| verbs::add_service(config, &service)).await
    }

    async fn edit_service(&self, request: Request<EditServiceRequest>) -> Answer<ChangeResponse> {
        let service = required(request.into_inner().service, "service")?;
        self.change(move |config| verbs::edit_service(config, &service)).await
    }

    async fn delete_service(&self, request: Request<DeleteServiceRequest>) -> Answer<ChangeResponse> {
        let service = required(request.into_inner().service, "service")?;
        self.change(move |config| verbs::delete_service(config, Some(&service))).await
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Answer<ChangeResponse> {
        self.change(|config| {
            verbs::flush(config);
            Ok(())
        })
        .await
    }

    async fn add_server(&self, request: Request<AddServerRequest>) -> Answer<ChangeResponse> {
        let request = request.into_inner();
        let server = required(request.server, "server")?;
        let service = required(request.service, "service")?;
        self.change(move |config| verbs::add_server(config, Some(&service), &server)).await
    }

    async fn edit_server(&self, request: Request<EditServerRequest>) -> Answer<ChangeResponse> {
        let request = request.into_inner();
        let server = required(request.server, "server")?;
        let service = required(request.service, "service")?;
        self.change(move |config| verbs::edit_server(config, Some(&service), &server)).await
    }

    async fn delete_server(&self, request: Request<DeleteServerRequest>) -> Answer<ChangeResponse> {
        let request = request.into_inner();
        let service = required(request.service, "service")?;
        let (address, port) = (request.address, request.port);
        self.change(move |config| verbs::delete_server(config, Some(&service), &address, port)).await
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let ListRequest { service, warnings } = request.into_inner();
        let only = service.map(|key| verbs::key(Some(&key))).transpose().map_err(refused)?;
        let view = self.0.control.view().await;
        let warnings = if warnings { self.0.control.warnings().await } else { Vec::new() };
        let config = &view.configuration;
        let mut services: Vec<&Model> = match &only {
            None => config.services.iter().map(|service| &**service).collect(),
            Some(key) => {
                let place = verbs::find(config, key, Code::NoSuchService).map_err(refused)?;
                vec![&config.services[place]]
            }
        };
        services.sort_by_key(|service| service.key.listing_order());
        Ok(Response::new(ListResponse {
            generation: view.generation,
            services: services.into_iter().map(|service| service_status(service, &view)).collect(),
            virtual_addresses: config.addresses_up().iter().map(ToString::to_string).collect(),
            warnings,
        }))
    }

    async fn zero(&self, request: Request<ZeroRequest>) -> Answer<ZeroResponse> {
        let of = request.into_inner().service;
        let of = of.map(|key| verbs::key(Some(&key))).transpose().map_err(refused)?;
        self.0.control.zero(of).await.map_err(refused)?;
        Ok(Response::new(ZeroResponse {}))
    }

    async fn set_timeouts(&self, request: Request<SetTimeoutsRequest>) -> Answer<ChangeResponse> {
        let timeouts = required(request.into_inner().timeouts, "timeouts")?;
        self.change(move |config| verbs::set_timeouts(config, &timeouts)).await
    }

    async fn get_timeouts(&self, _: Request<GetTimeoutsRequest>) -> Answer<Timeouts> {
        let configuration = self.in_force().configuration;
        let timeouts = &configuration.timeouts;
        Ok(Response::new(Timeouts {
            tcp_seconds: timeouts.tcp_established,
            tcp_fin_seconds: timeouts.tcp_fin_wait,
            udp_seconds: timeouts.udp,
        }))
    }

    async fn add_virtual_address(
        &self,
        request: Request<AddVirtualAddressRequest>,
    ) -> Answer<ChangeResponse> {
        let address = request.into_inner().address;
        self.change(move |config| verbs::add_virtual_address(config, &address)).await
    }

    async fn delete_virtual_address(
        &self,
        request: Request<DeleteVirtualAddressRequest>,
    ) -> Answer<ChangeResponse> {
        let address = request.into_inner().address;
        self.change(move |config| verbs::delete_virtual_address(config, &address)).await
    }

    async fn add_mark(&self, request: Request<AddMarkRequest>) -> Answer<ChangeResponse> {
        let rule = required(request.into_inner().rule, "rule")?;
        self.change(move |config| verbs::add_mark(config, &rule)).await
    }

    async fn delete_mark(&self, request: Request<DeleteMarkRequest>) -> Answer<ChangeResponse> {
        let rule = required(request.into_inner().rule, "rule")?;
        self.change(move |config| verbs::delete_mark(config, &rule)).await
    }

    async fn list_marks(&self, _: Request<ListMarksRequest>) -> Answer<ListMarksResponse> {
        let InForce { generation, configuration } = self.in_force();
        let rules = configuration.marks.iter().map(Into::into).collect();
        Ok(Response::new(ListMarksResponse { generation, rules }))
    }

    async fn add_source_nat(&self, request: Request<AddSourceNatRequest>) -> Answer<ChangeResponse> {
        let rule = required(request.into_inner().rule, "rule")?;
        self.change(move |config| verbs::add_source_nat(config, &rule)).await
    }

    async fn delete_source_nat(&self, request: Request<DeleteSourceNatRequest>) -> Answer<ChangeResponse> {
        let rule = required(request.into_inner().rule, "rule")?;
        self.change(move |config| verbs::delete_source_nat(config, &rule)).await
    }

    async fn list_source_nat(&self, _: Request<ListSourceNatRequest>) -> Answer<ListSourceNatResponse> {
        let InForce { generation, configuration } = self.in_force();
        let rules = configuration.source_nat.iter().map(Into::into).collect();
        Ok(Response::new(ListSourceNatResponse { generation, rules }))
    }

    async fn set_policies(&self, request: Request<SetPoliciesRequest>) -> Answer<ChangeResponse> {
        let asked = request.into_inner();
        self.change(move |config| verbs::set_policies(config, &asked)).await
    }

    async fn get_policies(&self, _: Request<GetPoliciesRequest>) -> Answer<GetPoliciesResponse> {
        let InForce { generation, configuration } = self.in_force();
        Ok(Response::new(GetPoliciesResponse {
            generation,
            policies: wire::policies(&configuration.policies),
            forward: forwarding_name(configuration.forwarding).into(),
        }))
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Answer<BatchResponse> {
        let asked = request.into_inner().verbs;
        if asked.len() > verbs::MOST_VERBS {
            return Err(refused(Refusal::invalid(
                "verbs",
                format!("expected at most {}, found {}", verbs::MOST_VERBS, asked.len()),
                "send them in several batches",
            )));
        }
        let (sender, results) = tokio::sync::oneshot::channel();
        let change = move |config: &mut Configuration| {
            let (results, steps) = verbs::batch(config, &asked);
            // Nobody listens any more if the client has hung up; the change is made all the same.
            let _ = sender.send(results);
            Ok(steps)
        };
        let applied = self.0.control.change_in_steps(Terms::default(), change).await.map_err(status)?;
        let results = results.await.map_err(|_| status(crate::apply::Error::Ending))?;
        let result =
            |result: Result<(), Refusal>| VerbResult { refusal: result.err().map(super::encode_refusal) };
        Ok(Response::new(BatchResponse {
            generation: applied.generation,
            results: results.into_iter().map(result).collect(),
            warnings: applied.warnings,
        }))
    }
}

fn service_status(service: &Model, view: &View) -> ServiceStatus {
    let (counters, rates) = view.services.get(&service.key).copied().unwrap_or_default();
    let server = |server: &crate::config::model::Server| {
        let (address, port) = (server.address, server.port);
        let key = DestinationKey { service: service.key, address, port };
        let seen = view.destinations.get(&key).copied().unwrap_or_default();
        let mut listed: Server = server.into();
        if view.host_addresses.contains(&address) {
            listed.method = ForwardingMethod::Local.into();
            listed.tunnel = None;
        }
        ServerStatus {
            server: Some(listed),
            active_connections: seen.active,
            inactive_connections: seen.inactive,
            persistent_connections: seen.templates,
            overloaded: seen.overloaded,
            silent: seen.silent,
            counters: Some(encode_counters(seen.shown.0)),
            rates: Some(encode_rates(seen.shown.1)),
        }
    };
    ServiceStatus {
        service: Some(service.into()),
        servers: service.servers.iter().map(server).collect(),
        counters: Some(encode_counters(counters)),
        rates: Some(encode_rates(rates)),
        pending: pending(
            service,
            &view.configuration.marks,
            &view.host_addresses,
            view.local_refused.as_deref(),
        ),
    }
}

fn encode_counters(totals: Totals) -> Counters {
    let Totals { connections, packets_in, bytes_in, packets_out, bytes_out } = totals;
    Counters { connections, packets_in, packets_out, bytes_in, bytes_out }
}

fn encode_rates(rates: Totals) -> Rates {
    let Totals { connections, packets_in, bytes_in, packets_out, bytes_out } = rates;
    Rates { connections, packets_in, packets_out, bytes_in, bytes_out }
}

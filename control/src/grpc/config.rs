//! `pointsman.v1.Config`

use super::{Answers, Context, required, status, stream};
use crate::{
    apply::{Error, InForce, Terms},
    config::validate,
};
use pointsman_proto::v1::{
    ApplyRequest, ApplyResponse, GetConfigRequest, GetConfigResponse, WatchConfigRequest,
    config_server::Config,
};
use tonic::{Request, Response, Status};

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl Config for Service {
    async fn get(&self, _: Request<GetConfigRequest>) -> Result<Response<GetConfigResponse>, Status> {
        Ok(Response::new(encode(&self.0.control.watch().borrow())))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let asked = request.into_inner();
        let configuration = required(asked.configuration, "configuration")?;
        let new =
            validate::configuration(&configuration).map_err(|refusals| status(Error::Refused(refusals)))?;
        let (dry_run, expected_generation) = (asked.dry_run, asked.expected_generation);
        let terms = Terms { dry_run, expected_generation, all_warnings: true };
        let change = move |config: &mut _| {
            *config = new;
            Ok(())
        };
        let applied = self.0.control.change(terms, change).await.map_err(status)?;
        let (generation, changes, warnings) = (applied.generation, applied.changes, applied.warnings);
        Ok(Response::new(ApplyResponse { generation, changes, warnings }))
    }

    type WatchStream = Answers<GetConfigResponse>;

    async fn watch(&self, _: Request<WatchConfigRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut in_force = self.0.control.watch();
        Ok(Response::new(stream(|sender| async move {
            loop {
                let now = encode(&in_force.borrow_and_update());
                if sender.send(Ok(now)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = in_force.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        })))
    }
}

fn encode(in_force: &InForce) -> GetConfigResponse {
    let configuration = Some((&*in_force.configuration).into());
    GetConfigResponse { generation: in_force.generation, configuration }
}

//! What the success of a job means for the records, and who is told.

use std::net::IpAddr;

use tombolo_netstate::Key;

use super::Controller;
use super::change::Change;
use super::endpoint::ports_of;
use super::job::{Done, Job, Pruned};
use crate::event::{Decision, Effect, Reply};
use crate::id::{EndpointId, SandboxId};
use crate::model::{NetworkState, Sandbox, SandboxState};
use crate::subject::Subject;

impl Controller {
    /// Stores the outcome of a job that succeeded, and answers.
    pub(super) fn finish(&mut self, now_ms: u64, job: &Job, decision: &mut Decision) {
        let mut change = Change::default();
        let reply = match job.done.clone() {
            Done::NetworkReady(id) => {
                if let Some(mut network) = self.state.network(id).cloned() {
                    network.state = NetworkState::Ready;
                    self.state.set_network(id, Some(network), &mut change);
                }
                Reply::Network(id)
            }
            Done::NetworkGone(id) => {
                self.erase_network(id, &mut change);
                Reply::Done
            }
            Done::Pruned(pruned) => self.erase_pruned(now_ms, pruned, &mut change, decision),
            Done::EndpointReady(id) => {
                self.settle_endpoint(id, &mut change, decision);
                Reply::Endpoint(id)
            }
            Done::EndpointHeld(id) => self.tell_of_endpoint(id, decision),
            Done::EndpointLeft(id, sandbox) => {
                decision.effects.push(Effect::WriteFiles(sandbox));
                Reply::Endpoint(id)
            }
            Done::EndpointGone(id) => {
                self.erase_endpoint(now_ms, id, &mut change, decision);
                Reply::Done
            }
            Done::Published(id) | Done::Unpublished(id) => Reply::Sandbox(id),
            Done::SandboxRunning(id) | Done::SandboxStopped(id) => {
                self.settle_sandbox(id, &mut change, decision);
                Reply::Sandbox(id)
            }
            Done::SandboxHeld(id) => {
                decision.effects.push(Effect::WriteFiles(id));
                Reply::Sandbox(id)
            }
            Done::SandboxGone(id, endpoints) => {
                for endpoint in endpoints {
                    self.erase_endpoint(now_ms, endpoint, &mut change, decision);
                }
                self.state.set_sandbox(id, None, &mut change);
                decision.effects.push(Effect::RemoveFiles(id));
                Reply::Done
            }
            Done::Compared { ops, failures, .. } => Reply::Operations { ops, failures },
            Done::Refreshed => Reply::Done,
            Done::Adopted(id) => {
                decision.effects.push(Effect::WriteFiles(id));
                Reply::Sandbox(id)
            }
            Done::Recorded { reply, tell, .. } => {
                decision
                    .effects
                    .extend(tell.into_iter().map(Effect::WriteFiles));
                reply
            }
        };
        Self::store(decision, change.take_writes(None), job.done.durable());
        self.tell_outside(job, decision);
        if let Some(request) = job.request {
            decision.replies.push((request, Ok(reply)));
        }
    }

    /// Has the files and relays of sandboxes brought up to date whose publications or links a job concerned.
    fn tell_outside(&self, job: &Job, decision: &mut Decision) {
        for subject in &job.subjects {
            let Subject::Sandbox(id) = subject else {
                continue;
            };
            let effect = Effect::WriteFiles(*id);
            let concerned = |s: &Sandbox| {
                !s.spec.publications.is_empty()
                    || !s.spec.links.is_empty()
                    || matches!(job.done, Done::Unpublished(_))
            };
            if self.state.sandbox(*id).is_some_and(concerned) && !decision.effects.contains(&effect)
            {
                decision.effects.push(effect);
            }
        }
    }

    fn erase_pruned(
        &mut self,
        now_ms: u64,
        pruned: Pruned,
        change: &mut Change,
        decision: &mut Decision,
    ) -> Reply {
        let Pruned {
            networks,
            endpoints,
            sandboxes,
        } = pruned;
        for (id, _) in &endpoints {
            self.erase_endpoint(now_ms, *id, change, decision);
        }
        for (id, _) in &sandboxes {
            self.state.set_sandbox(*id, None, change);
            decision.effects.push(Effect::RemoveFiles(*id));
        }
        for (id, _) in &networks {
            self.erase_network(*id, change);
        }
        self.end_pools_of_nobody(now_ms, change);
        Reply::Pruned {
            networks: names(networks),
            endpoints: names(endpoints),
            sandboxes: names(sandboxes),
        }
    }

    /// Has the files of an endpoint's sandbox written anew.
    fn tell_of_endpoint(&self, id: EndpointId, decision: &mut Decision) -> Reply {
        let sandbox = self
            .state
            .endpoint(id)
            .and_then(|endpoint| endpoint.sandbox);
        decision.effects.extend(sandbox.map(Effect::WriteFiles));
        Reply::Endpoint(id)
    }

    fn settle_sandbox(&mut self, id: SandboxId, change: &mut Change, decision: &mut Decision) {
        let Some(mut sandbox) = self.state.sandbox(id).cloned() else {
            return;
        };
        if sandbox.state == SandboxState::Creating {
            sandbox.state = SandboxState::Running;
            self.state.set_sandbox(id, Some(sandbox), change);
        }
        let endpoints: Vec<EndpointId> = self
            .state
            .endpoints_of_sandbox(id)
            .iter()
            .map(|endpoint| endpoint.id)
            .collect();
        for endpoint in endpoints {
            self.acknowledge(endpoint, change);
        }
        decision.effects.push(Effect::WriteFiles(id));
    }

    fn settle_endpoint(&mut self, id: EndpointId, change: &mut Change, decision: &mut Decision) {
        self.acknowledge(id, change);
        if let Some(sandbox) = self
            .state
            .endpoint(id)
            .and_then(|endpoint| endpoint.sandbox)
        {
            decision.effects.push(Effect::WriteFiles(sandbox));
        }
    }

    /// Marks an endpoint as told to the one who asked, so that a restart keeps it.
    fn acknowledge(&mut self, id: EndpointId, change: &mut Change) {
        let Some(mut endpoint) = self.state.endpoint(id).cloned() else {
            return;
        };
        let attached = endpoint
            .attachment
            .as_ref()
            .is_some_and(|attachment| attachment.fresh);
        if endpoint.fresh || attached {
            endpoint.fresh = false;
            if let Some(attachment) = &mut endpoint.attachment {
                attachment.fresh = false;
            }
            self.state.set_endpoint(id, Some(endpoint), change);
        }
    }

    /// Erases an endpoint; its addresses return once the kernel no longer holds them.
    fn erase_endpoint(
        &mut self,
        now_ms: u64,
        id: EndpointId,
        change: &mut Change,
        decision: &mut Decision,
    ) {
        let Some(endpoint) = self.state.endpoint(id).cloned() else {
            return;
        };
        let owner = id.to_string();
        let addresses: Vec<IpAddr> = endpoint.addresses.iter().map(ipnet::IpNet::addr).collect();
        let port = ports_of(&endpoint).find(|key| self.leaving.contains_key(key));
        match port {
            Some(key) => {
                for ip in addresses {
                    // Fails only for an address that somebody else has, which is then not ours to give back.
                    if self.state.space.retire(ip, &owner).is_ok() {
                        self.leaving
                            .entry(key.clone())
                            .or_default()
                            .push((ip, owner.clone()));
                    }
                }
            }
            None => {
                for ip in addresses {
                    drop(self.state.space.release(ip, &owner, now_ms));
                }
            }
        }
        self.state.set_endpoint(id, None, change);
        if let Some(sandbox) = endpoint.sandbox
            && self
                .state
                .sandbox(sandbox)
                .is_some_and(|s| s.state == SandboxState::Running)
        {
            decision.effects.push(Effect::WriteFiles(sandbox));
        }
    }

    /// The kernel no longer holds what it was removing.
    pub(super) fn gone(&mut self, now_ms: u64, keys: &[Key]) {
        for key in keys {
            self.departing.remove(key);
            for (ip, owner) in self.leaving.remove(key).unwrap_or_default() {
                drop(self.state.space.release(ip, &owner, now_ms));
            }
        }
    }
}

fn names<Id>(pairs: Vec<(Id, String)>) -> Vec<String> {
    pairs.into_iter().map(|(_, name)| name).collect()
}

//! The hosts of one role as they come, go and change what they say of themselves.

use crate::{Host, Role};
use chaski_ports::{Coordinator, PortError, Watch};
use futures::future::select_all;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The hosts of one role, read again only where they changed.
///
/// A watch on a node does not tell of its children's content, so every host has a watch of its own.
pub(crate) struct Members<'a> {
    coordinator: &'a dyn Coordinator,
    role: Role,
    names: Box<dyn Watch>,
    /// Whether hosts came or went since the last read.
    stale: bool,
    members: BTreeMap<Arc<str>, Member>,
}

struct Member {
    watch: Box<dyn Watch>,
    stale: bool,
    host: Option<Host>,
}

impl<'a> Members<'a> {
    /// Watches the hosts; the first [`read`](Self::read) reads them all.
    pub(crate) async fn watch(
        coordinator: &'a dyn Coordinator,
        role: Role,
    ) -> Result<Self, PortError> {
        let names = coordinator.watch(&role.hosts()).await?;
        Ok(Self { coordinator, role, names, stale: true, members: BTreeMap::new() })
    }

    /// The hosts that are there and can be read.
    pub(crate) async fn read(&mut self) -> Result<HashMap<Arc<str>, Host>, PortError> {
        if self.stale {
            let names = self.coordinator.children(&self.role.hosts()).await?;
            self.members.retain(|id, _| names.iter().any(|name| **name == **id));
            for name in names {
                if !self.members.contains_key(name.as_str()) {
                    // Before the read, so that what changes after it wakes the watch.
                    let watch = self.coordinator.watch(&self.role.host(&name)).await?;
                    let member = Member { watch, stale: true, host: None };
                    self.members.insert(name.into(), member);
                }
            }
            self.stale = false;
        }
        for (id, member) in self.members.iter_mut().filter(|(_, member)| member.stale) {
            let path = self.role.host(id);
            // Gone meanwhile: the watch on the names tells.
            let node = self.coordinator.get(&path).await?;
            member.host = node.and_then(|node| match Host::decode(&node.data) {
                Ok(host) => Some(host),
                Err(error) => {
                    tracing::error!(path, %error, "host cannot be read");
                    None
                }
            });
            member.stale = false;
        }
        let hosts = self.members.iter();
        Ok(hosts.filter_map(|(id, m)| Some((Arc::clone(id), m.host.clone()?))).collect())
    }

    /// Waits for a change since the last read. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Result<(), PortError> {
        let named = Box::pin(async { self.names.changed().await.map(|()| None) });
        let each = self.members.iter_mut().map(|(id, member)| {
            let (id, watch) = (Arc::clone(id), &mut member.watch);
            Box::pin(async move { watch.changed().await.map(|()| Some(id)) }) as _
        });
        let all: Vec<futures::future::BoxFuture<'_, _>> =
            std::iter::once(named as _).chain(each).collect();
        let (changed, ..) = select_all(all).await;
        match changed? {
            None => self.stale = true,
            Some(id) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.stale = true;
                }
            }
        }
        Ok(())
    }
}

//! Contacts, settings, and where blocks begin and end.

use crate::{
    Directory,
    keys::{self, Key},
    tables, values, versioned,
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{Offset, Partition, UserId, connection::BlockEdge};
use chaski_ports::{ConnectionRow, ConnectionStore, PortError};
use std::ops::Bound;

#[async_trait]
impl ConnectionStore for Directory {
    async fn save_connections(&self, rows: &[ConnectionRow]) -> Result<(), PortError> {
        let encode = |row: &ConnectionRow| {
            let key = keys::connection(&row.user, &row.peer);
            (key, values::numbered(row.version, &row.state))
        };
        self.save_versioned(rows.iter().map(encode).collect()).await
    }

    async fn connection(
        &self,
        user: &UserId,
        peer: &UserId,
    ) -> Result<Option<ConnectionRow>, PortError> {
        let key = keys::connection(user, peer);
        let found = versioned::get(self.engine.tables(), &key, "connection")?;
        Ok(found.map(|(version, state)| ConnectionRow {
            user: user.clone(),
            peer: peer.clone(),
            version,
            state,
        }))
    }

    async fn connections(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<ConnectionRow>, PortError> {
        let (user, prefix) = (user.clone(), keys::connections(user));
        let after = after.map(|peer| keys::connection(&user, peer));
        self.engine
            .read(move |tables| {
                let found = versioned::slice(tables, &prefix, after.as_ref(), limit, "connection")?;
                let row = |(peer, (version, state))| {
                    let user = user.clone();
                    ConnectionRow { user, peer, version, state }
                };
                Ok(found.into_iter().map(row).collect())
            })
            .await
    }

    async fn blocks(
        &self,
        partition: Partition,
        after: Option<&BlockEdge>,
        limit: usize,
    ) -> Result<Vec<BlockEdge>, PortError> {
        let prefix = keys::blocks(partition);
        let after = after.map(|edge| keys::block(partition, edge));
        self.engine
            .read(move |tables| {
                let from = Bound::Excluded(after.as_ref().map_or(&prefix[..], Vec::as_slice));
                // Above every byte of an id.
                let end = [&prefix[..], &[0xff]].concat();
                let pairs = tables::range(&tables.rows, (from, Bound::Excluded(&end[..])));
                let edges = pairs.take(limit).map(|pair| {
                    let (key, stored) = pair?;
                    edge(&key, &prefix, &stored).ok_or_else(|| tables::corrupt("block"))
                });
                edges.collect()
            })
            .await
    }

    async fn pair_blocks(
        &self,
        partition: Partition,
        (user, peer): (&UserId, &UserId),
        from: Offset,
        limit: usize,
    ) -> Result<Vec<BlockEdge>, PortError> {
        let prefix = keys::blocks(partition);
        let [from, upto] =
            [from, Offset(u64::MAX)].map(|at| keys::pair_block(&prefix, (user, peer), at));
        self.engine
            .read(move |tables| {
                let pairs = tables::range(&tables.rows, &from[..]..=&upto[..]);
                let edges = pairs.take(limit).map(|pair| {
                    let (key, stored) = pair?;
                    edge(&key, &prefix, &stored).ok_or_else(|| tables::corrupt("block"))
                });
                edges.collect()
            })
            .await
    }

    async fn save_settings(
        &self,
        user: &UserId,
        version: u64,
        state: Bytes,
    ) -> Result<(), PortError> {
        let row = (keys::settings(user), values::numbered(version, &state));
        self.save_versioned(vec![row]).await
    }

    async fn settings(&self, user: &UserId) -> Result<Option<Bytes>, PortError> {
        let found = versioned::get(self.engine.tables(), &keys::settings(user), "settings")?;
        Ok(found.map(|(_, state)| state))
    }
}

impl Directory {
    /// Writes rows that begin with their version.
    async fn save_versioned(&self, rows: Vec<(Key, Bytes)>) -> Result<(), PortError> {
        let bytes = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.engine
            .write(bytes, move |tx| {
                rows.into_iter()
                    .try_for_each(|(key, value)| tx.put_greater(key, value, 8).map(drop))
            })
            .await
    }
}

fn edge(key: &[u8], prefix: &[u8], stored: &Bytes) -> Option<BlockEdge> {
    let (user, peer, offset) = keys::split_block(key, prefix)?;
    let (blocked, at) = values::split_edge(stored)?;
    Some(BlockEdge { user, peer, offset, blocked, at })
}

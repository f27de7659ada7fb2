//! Contacts, settings, and where blocks begin and end.

use crate::{
    CqlStore,
    db::{self, WRITES_IN_FLIGHT},
    error, keys,
};
use bytes::Bytes;
use chaski_core::{Offset, Partition, UserId, connection::BlockEdge};
use chaski_ports::{ConnectionRow, ConnectionStore, PortError};

#[async_trait::async_trait]
impl ConnectionStore for CqlStore {
    async fn save_connections(&self, rows: &[ConnectionRow]) -> Result<(), PortError> {
        let mut saves = Vec::with_capacity(rows.len());
        for row in rows {
            let version = keys::signed("version", row.version)?;
            let key = (row.user.as_str(), row.peer.as_str());
            let values = (key.0, key.1, version, &row.state[..], version);
            saves.push(self.db.write("put_connection", &self.statements.put_connection, values));
        }
        db::settle(saves, WRITES_IN_FLIGHT).await
    }

    async fn connection(
        &self,
        user: &UserId,
        peer: &UserId,
    ) -> Result<Option<ConnectionRow>, PortError> {
        let key = (user.as_str(), peer.as_str());
        let rows: Vec<(i64, Bytes)> =
            self.db.rows("connection", &self.statements.connection, key, 1).await?;
        Ok(rows.into_iter().next().map(|(version, state)| ConnectionRow {
            user: user.clone(),
            peer: peer.clone(),
            version: keys::unsigned(version),
            state,
        }))
    }

    async fn connections(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<ConnectionRow>, PortError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // No user id is empty, so all of them are above it.
        let after = after.map_or("", UserId::as_str);
        let values = (user.as_str(), after, keys::limit(limit));
        let rows: Vec<(String, i64, Bytes)> =
            self.db.rows("connections", &self.statements.connections, values, limit).await?;
        rows.into_iter()
            .map(|(peer, version, state)| {
                Ok(ConnectionRow {
                    user: user.clone(),
                    peer: peer.parse().map_err(|e| error::corrupt("connections.peer", e))?,
                    version: keys::unsigned(version),
                    state,
                })
            })
            .collect()
    }

    async fn blocks(
        &self,
        partition: Partition,
        after: Option<&BlockEdge>,
        limit: usize,
    ) -> Result<Vec<BlockEdge>, PortError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // No user id is empty, so all of them are above it.
        let (user, peer) = after.map_or(("", ""), |edge| (edge.user.as_str(), edge.peer.as_str()));
        // Nothing is stored at or above 2^63.
        let offset = after.map_or(0, |edge| i64::try_from(edge.offset.0).unwrap_or(i64::MAX));
        let values = (keys::partition(partition)?, user, peer, offset, keys::limit(limit));
        let rows: Vec<(String, String, i64, bool, i64)> =
            self.db.rows("blocks", &self.statements.blocks, values, limit).await?;
        rows.into_iter()
            .map(|(user, peer, offset, blocked, at)| {
                Ok(BlockEdge {
                    user: user.parse().map_err(|e| error::corrupt("blocks.user", e))?,
                    peer: peer.parse().map_err(|e| error::corrupt("blocks.peer", e))?,
                    offset: Offset(keys::unsigned(offset)),
                    blocked,
                    at,
                })
            })
            .collect()
    }

    async fn pair_blocks(
        &self,
        partition: Partition,
        (user, peer): (&UserId, &UserId),
        from: Offset,
        limit: usize,
    ) -> Result<Vec<BlockEdge>, PortError> {
        // Nothing is stored at or above 2^63.
        let Some(from) = i64::try_from(from.0).ok().filter(|_| limit > 0) else {
            return Ok(Vec::new());
        };
        let key = (keys::partition(partition)?, user.as_str(), peer.as_str());
        let values = (key.0, key.1, key.2, from, keys::limit(limit));
        let rows: Vec<(i64, bool, i64)> =
            self.db.rows("pair_blocks", &self.statements.pair_blocks, values, limit).await?;
        let edge = |(offset, blocked, at)| BlockEdge {
            user: user.clone(),
            peer: peer.clone(),
            offset: Offset(keys::unsigned(offset)),
            blocked,
            at,
        };
        Ok(rows.into_iter().map(edge).collect())
    }

    async fn save_settings(
        &self,
        user: &UserId,
        version: u64,
        state: Bytes,
    ) -> Result<(), PortError> {
        let version = keys::signed("version", version)?;
        let values = (user.as_str(), version, &state[..], version);
        self.db.write("put_settings", &self.statements.put_settings, values).await?;
        Ok(())
    }

    async fn settings(&self, user: &UserId) -> Result<Option<Bytes>, PortError> {
        let rows: Vec<(Bytes,)> =
            self.db.rows("settings", &self.statements.settings, (user.as_str(),), 1).await?;
        Ok(rows.into_iter().next().map(|(state,)| state))
    }
}

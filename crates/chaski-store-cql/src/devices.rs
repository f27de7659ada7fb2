//! Devices: a cursor that only grows, because the position is the write timestamp of the whole row.

use crate::{CqlStore, error, keys};
use chaski_core::{DeviceId, Position, UserId};
use chaski_ports::{DeviceRow, DeviceStore, PortError};
use futures::{StreamExt, stream};

/// How many devices are written at once by one call.
const IN_FLIGHT: usize = 64;

/// Device, cursor, last active. A cell that was never written is absent.
type Row = (String, Option<i64>, Option<i64>);

#[async_trait::async_trait]
impl DeviceStore for CqlStore {
    async fn save_cursors(&self, rows: &[DeviceRow]) -> Result<(), PortError> {
        let mut saves = Vec::with_capacity(rows.len());
        for row in rows {
            let cursor = keys::signed("cursor", row.cursor.0)?;
            saves.push(self.save_cursor(row, cursor));
        }
        let mut settled = stream::iter(saves).buffer_unordered(IN_FLIGHT);
        let mut outcome = Ok(());
        while let Some(result) = settled.next().await {
            outcome = outcome.and(result);
        }
        outcome
    }

    async fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<DeviceRow>, PortError> {
        let key = (user.as_str(), device.as_str());
        let rows: Vec<Row> = self.db.rows("device", &self.statements.device, key, 1).await?;
        rows.into_iter().next().map(|r| device_row(user, r)).transpose()
    }

    async fn devices(&self, user: &UserId, limit: usize) -> Result<Vec<DeviceRow>, PortError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let values = (user.as_str(), keys::limit(limit));
        let rows: Vec<Row> =
            self.db.rows("devices", &self.statements.devices, values, limit).await?;
        rows.into_iter().map(|r| device_row(user, r)).collect()
    }
}

impl CqlStore {
    /// A save that would go back loses by its timestamp, with all its cells. Of two at the same position
    /// the greater value stays, which is the later time.
    async fn save_cursor(&self, row: &DeviceRow, cursor: i64) -> Result<(), PortError> {
        let active = row.last_active_ms.max(0);
        let (user, device) = (row.user.as_str(), row.device.as_str());
        let values = (cursor, cursor, active, user, device);
        self.db.write("save_cursor", &self.statements.put_cursor, values).await?;
        Ok(())
    }
}

fn device_row(user: &UserId, (device, cursor, active): Row) -> Result<DeviceRow, PortError> {
    Ok(DeviceRow {
        user: user.clone(),
        device: device.parse().map_err(|e| error::corrupt("devices.device", e))?,
        cursor: Position(cursor.map_or(0, keys::unsigned)),
        last_active_ms: active.unwrap_or(0),
    })
}

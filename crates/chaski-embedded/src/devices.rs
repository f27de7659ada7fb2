//! Devices and their cursors. A cursor is compared and written by the writer, so it never goes
//! back, whoever writes it.

use crate::{Directory, keys, messages::id, tables, values};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{DeviceId, Position, UserId};
use chaski_ports::{DeviceRow, DeviceStore, PortError};

/// Cursor and time: where the cursor is the same, the later time stays.
const COMPARED_BYTES: usize = 16;

#[async_trait]
impl DeviceStore for Directory {
    async fn save_cursors(&self, rows: &[DeviceRow]) -> Result<(), PortError> {
        let encode = |row: &DeviceRow| {
            let key = keys::device(&row.user, &row.device);
            (key, values::device(row.cursor.0, row.last_active_ms))
        };
        let rows: Vec<_> = rows.iter().map(encode).collect();
        let bytes = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.engine
            .write(bytes, move |tx| {
                for (key, value) in rows {
                    tx.put_greater(key, value, COMPARED_BYTES)?;
                }
                Ok(())
            })
            .await
    }

    async fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<DeviceRow>, PortError> {
        let stored = tables::get(&self.engine.tables().rows, &keys::device(user, device))?;
        stored.map(|stored| row(user, device.clone(), &stored)).transpose()
    }

    async fn devices(&self, user: &UserId, limit: usize) -> Result<Vec<DeviceRow>, PortError> {
        let (user, prefix) = (user.clone(), keys::devices(user));
        self.engine
            .read(move |tables| {
                let rows = tables::prefix(&tables.rows, &prefix).map(|pair| {
                    let (key, stored) = pair?;
                    let device = id(&key, &prefix).ok_or_else(|| tables::corrupt("device"))?;
                    row(&user, device, &stored)
                });
                rows.take(limit).collect()
            })
            .await
    }
}

fn row(user: &UserId, device: DeviceId, stored: &Bytes) -> Result<DeviceRow, PortError> {
    let (cursor, last_active_ms) =
        values::split_device(stored).ok_or_else(|| tables::corrupt("device"))?;
    Ok(DeviceRow { user: user.clone(), device, cursor: Position(cursor), last_active_ms })
}

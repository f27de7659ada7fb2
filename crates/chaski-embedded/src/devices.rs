//! Devices, their cursors and notes. The writer compares and writes, so nothing of a device goes
//! back, whoever writes it.

use crate::{
    Directory,
    keys::{self, Key},
    tables, values, versioned,
    writer::Transaction,
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{DeviceId, Position, UserId, record::UnixMs};
use chaski_ports::{DeviceNote, DeviceRow, DeviceStore, KnownDevice, PortError};

#[async_trait]
impl DeviceStore for Directory {
    async fn save_cursors(&self, rows: &[DeviceRow]) -> Result<(), PortError> {
        let encode = |row: &DeviceRow| {
            let key = keys::device(&row.user, &row.device);
            (key, row.cursor.0, row.last_active_ms)
        };
        let rows: Vec<_> = rows.iter().map(encode).collect();
        let bytes = rows.iter().map(|(key, ..)| key.len() + 16).sum();
        self.engine
            .write(bytes, move |tx| {
                rows.into_iter().try_for_each(|(key, cursor, active)| {
                    change(tx, key, |device| {
                        device.cursor = device.cursor.max(cursor);
                        device.last_active_ms = device.last_active_ms.max(active);
                    })
                })
            })
            .await
    }

    async fn note(
        &self,
        user: &UserId,
        device: &DeviceId,
        note: DeviceNote,
        at_ms: UnixMs,
    ) -> Result<(), PortError> {
        let key = keys::device(user, device);
        let bytes = key.len() + if let DeviceNote::Name(name) = &note { name.len() } else { 0 };
        self.engine
            .write(bytes, move |tx| {
                change(tx, key, |device| match note {
                    DeviceNote::Name(name) if at_ms > device.named_ms => {
                        (device.named_ms, device.name) = (at_ms, name.into());
                    }
                    DeviceNote::Name(_) => {} // an older one
                    DeviceNote::Revoked => device.revoked_ms = device.revoked_ms.max(at_ms),
                })
            })
            .await
    }

    async fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<KnownDevice>, PortError> {
        let stored = tables::get(&self.engine.tables().rows, &keys::device(user, device))?;
        stored.map(|stored| known(user, device.clone(), &stored)).transpose()
    }

    async fn devices(&self, user: &UserId, limit: usize) -> Result<Vec<KnownDevice>, PortError> {
        let (user, prefix) = (user.clone(), keys::devices(user));
        self.engine
            .read(move |tables| {
                let rows = tables::prefix(&tables.rows, &prefix).map(|pair| {
                    let (key, stored) = pair?;
                    let device = versioned::id(&key, &prefix);
                    known(&user, device.ok_or_else(corrupt)?, &stored)
                });
                rows.take(limit).collect()
            })
            .await
    }
}

/// Lets `change` work on the device as it is, and writes it; also one that nobody knew.
fn change(
    tx: &mut Transaction<'_>,
    key: Key,
    change: impl FnOnce(&mut values::Device),
) -> Result<(), PortError> {
    let old = tx.row(&key)?;
    let mut device = match &old {
        Some(stored) => values::Device::from_bytes(stored).ok_or_else(corrupt)?,
        None => values::Device::default(),
    };
    change(&mut device);
    let new = device.to_bytes();
    if old.as_ref() != Some(&new) {
        tx.put_row(key, new);
    }
    Ok(())
}

fn known(user: &UserId, device: DeviceId, stored: &Bytes) -> Result<KnownDevice, PortError> {
    let found = values::Device::from_bytes(stored).ok_or_else(corrupt)?;
    let row = DeviceRow {
        user: user.clone(),
        device,
        cursor: Position(found.cursor),
        last_active_ms: found.last_active_ms,
    };
    let name = String::from_utf8(found.name.into()).map_err(|_| corrupt())?;
    Ok(KnownDevice { row, name, revoked_ms: found.revoked_ms })
}

fn corrupt() -> PortError {
    tables::corrupt("device")
}

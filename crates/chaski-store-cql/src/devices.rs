//! Devices. A cursor only grows, because the position is its write timestamp; what is noted of a
//! device stands in a table of its own, where every cell has its own time.

use crate::{CqlStore, db, error, keys};
use chaski_core::{DeviceId, Position, UserId, record::UnixMs};
use chaski_ports::{DeviceNote, DeviceRow, DeviceStore, KnownDevice, PortError};
use std::{cmp::Ordering, iter::Peekable, vec::IntoIter};

/// How many devices are written at once by one call.
const IN_FLIGHT: usize = 64;

/// Device, cursor, last active. A cell that was never written is absent.
type Row = (String, Option<i64>, Option<i64>);
/// Device, last active, name, revoked.
type Note = (String, Option<i64>, Option<String>, Option<i64>);

#[async_trait::async_trait]
impl DeviceStore for CqlStore {
    async fn save_cursors(&self, rows: &[DeviceRow]) -> Result<(), PortError> {
        let mut saves = Vec::with_capacity(rows.len());
        for row in rows {
            let cursor = keys::signed("cursor", row.cursor.0)?;
            saves.push(self.save_cursor(row, cursor));
        }
        db::settle(saves, IN_FLIGHT).await
    }

    async fn note(
        &self,
        user: &UserId,
        device: &DeviceId,
        note: DeviceNote,
        at_ms: UnixMs,
    ) -> Result<(), PortError> {
        let (s, at) = (&self.statements, keys::timestamp(at_ms));
        let (user, device) = (user.as_str(), device.as_str());
        match note {
            DeviceNote::Name(name) => {
                self.db.write("put_name", &s.put_name, (at, name, user, device)).await?
            }
            DeviceNote::Revoked => {
                self.db.write("put_revoked", &s.put_revoked, (at, at_ms, user, device)).await?
            }
        };
        Ok(())
    }

    async fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<KnownDevice>, PortError> {
        let (s, key) = (&self.statements, (user.as_str(), device.as_str()));
        let (rows, notes) = tokio::try_join!(
            self.db.rows("device", &s.device, key, 1),
            self.db.rows("device_note", &s.device_note, key, 1),
        )?;
        Ok(merge(user, rows, notes, 1)?.pop())
    }

    async fn devices(&self, user: &UserId, limit: usize) -> Result<Vec<KnownDevice>, PortError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (s, values) = (&self.statements, (user.as_str(), keys::limit(limit)));
        let (rows, notes) = tokio::try_join!(
            self.db.rows("devices", &s.devices, values, limit),
            self.db.rows("device_notes", &s.device_notes, values, limit),
        )?;
        merge(user, rows, notes, limit)
    }
}

impl CqlStore {
    /// A save that would go back loses by its timestamps: the cursor's is the position, the
    /// activity's is the time. Both tables have one partition key, so it is one mutation.
    async fn save_cursor(&self, row: &DeviceRow, cursor: i64) -> Result<(), PortError> {
        let (s, active) = (&self.statements, row.last_active_ms.max(0));
        let (user, device) = (row.user.as_str(), row.device.as_str());
        let activity = (keys::timestamp(active), active, user, device);
        let statements = [&s.put_cursor, &s.put_active];
        self.db
            .write_pair("save_cursor", statements, ((cursor, cursor, user, device), activity))
            .await
    }
}

/// The first `limit` devices of both tables, which are ordered by device.
fn merge(
    user: &UserId,
    rows: Vec<Row>,
    notes: Vec<Note>,
    limit: usize,
) -> Result<Vec<KnownDevice>, PortError> {
    let (mut rows, mut notes) = (rows.into_iter().peekable(), notes.into_iter().peekable());
    std::iter::from_fn(|| next(&mut rows, &mut notes))
        .take(limit)
        .map(|((device, cursor, active), note)| {
            let (_, noted, name, revoked) = note.unwrap_or_default();
            let row = DeviceRow {
                user: user.clone(),
                device: device.parse().map_err(|e| error::corrupt("devices.device", e))?,
                cursor: Position(cursor.map_or(0, keys::unsigned)),
                last_active_ms: active.max(noted).unwrap_or(0),
            };
            let name = name.unwrap_or_default();
            Ok(KnownDevice { row, name, revoked_ms: revoked.unwrap_or(0) })
        })
        .collect()
}

fn next(
    rows: &mut Peekable<IntoIter<Row>>,
    notes: &mut Peekable<IntoIter<Note>>,
) -> Option<(Row, Option<Note>)> {
    let first = match (rows.peek(), notes.peek()) {
        (None, None) => return None,
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(row), Some(note)) => row.0.cmp(&note.0),
    };
    let note = if first == Ordering::Less { None } else { notes.next() };
    let row = if first == Ordering::Greater { None } else { rows.next() };
    let row = row.or_else(|| note.as_ref().map(|note| (note.0.clone(), None, None)));
    row.map(|row| (row, note))
}

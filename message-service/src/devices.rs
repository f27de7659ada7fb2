//! Devices of users: who may open one, and how far each has come.
//!
//! Must not know: what a device is shown, how one is revoked.

use crate::{
    reads::failed,
    service::{MessageService, caller},
};
use chaski_core::{Position, UserId, record::UnixMs};
use chaski_ports::{DeviceRow, KnownDevice};
use chaski_proto::{Problem, v1};

/// Devices of a user that are looked at to count those that are in use; retired ones stay stored.
const LISTED_MAX: usize = 1000;
const DAY_MS: UnixMs = 24 * 60 * 60 * 1000;

/// The stored cursor of a device that says hello. One that is not in use yet, or not any more,
/// takes one of the user's places; 403 where there is none. Two that come in the same moment may
/// both take the last one: the limit bounds what is kept, it keeps nobody out.
pub(crate) async fn open(
    service: &MessageService,
    request: v1::Caller,
) -> Result<v1::OpenDeviceReply, Problem> {
    let (user, device) = caller(Some(request))?;
    let now = service.ports.clock.now_ms();
    let known = service.ports.devices.device(&user, &device).await.map_err(|e| failed(&e))?;
    let idle_ms = UnixMs::from(service.config.device_idle_days) * DAY_MS;
    let in_use = |known: &KnownDevice| known.is_in_use(now, idle_ms);
    if !known.as_ref().is_some_and(in_use) {
        let others = service.ports.devices.devices(&user, LISTED_MAX).await;
        let others = others.map_err(|e| failed(&e))?;
        if others.iter().filter(|known| in_use(known)).count() >= service.config.devices_max {
            return Err(too_many(&user, service.config.devices_max));
        }
    }
    let row = DeviceRow { user, device, cursor: Position::BEGINNING, last_active_ms: now };
    service.ports.devices.save_cursors(&[row]).await.map_err(|e| failed(&e))?;
    Ok(v1::OpenDeviceReply { cursor: known.map_or(0, |known| known.row.cursor.0) })
}

/// Saves how far devices have come.
pub(crate) async fn save_cursors(
    service: &MessageService,
    request: v1::SaveCursorsRequest,
) -> Result<v1::SaveCursorsReply, Problem> {
    let last_active_ms = service.ports.clock.now_ms();
    let row = |d: v1::Device| {
        Ok(DeviceRow {
            user: d.user_id.parse()?,
            device: d.device_id.parse()?,
            cursor: Position(d.cursor),
            last_active_ms,
        })
    };
    let rows = request.devices.into_iter().map(row).collect::<Result<Vec<_>, Problem>>()?;
    service.ports.devices.save_cursors(&rows).await.map_err(|e| failed(&e))?;
    Ok(v1::SaveCursorsReply {})
}

fn too_many(user: &UserId, max: usize) -> Problem {
    tracing::info!(%user, max, "a device too many");
    metrics::counter!("chaski_devices_refused_total").increment(1);
    let message =
        format!("you have {max} devices already: revoke one that you do not use any more");
    Problem::new(403, "too_many_devices", message)
}

//! The devices of a user: which there are, what they are called, and revoking one.

use crate::service::{ConnectionService, caller, unavailable};
use bytes::Bytes;
use chaski_core::{DeviceId, Partition, UserId};
use chaski_ports::{DeviceNote, KnownDevice, Record, Topic};
use chaski_proto::{Problem, SCHEMA, Timestamp, v1};
use prost::Message as _;

/// Those that are retired count, so it is far above the limit of devices.
const DEVICES_READ_MAX: usize = 1000;
const DAY_MS: i64 = 86_400_000;

/// The devices that are not retired.
pub(crate) async fn list(
    service: &ConnectionService,
    request: v1::DevicesRequest,
) -> Result<v1::DevicesReply, Problem> {
    let (user, _) = caller(request.caller)?;
    let there = in_use(service, &user).await?;
    Ok(v1::DevicesReply { devices: there.iter().map(view).collect() })
}

/// The devices of a user that are not retired.
pub(crate) async fn in_use(
    service: &ConnectionService,
    user: &UserId,
) -> Result<Vec<KnownDevice>, Problem> {
    let known = service.ports.devices.devices(user, DEVICES_READ_MAX).await;
    let mut known = known.map_err(|e| unavailable(&e))?;
    known.retain(|device| !is_retired(service, device));
    Ok(known)
}

/// Calls a device something.
pub(crate) async fn rename(
    service: &ConnectionService,
    request: v1::RenameDeviceRequest,
) -> Result<v1::DeviceView, Problem> {
    let (user, _) = caller(request.caller)?;
    let device: DeviceId = request.device_id.parse()?;
    let max = service.config.device_name_chars_max;
    if request.name.chars().count() > max {
        return Err(Problem::invalid(format!("a device's name has at most {max} characters")));
    }
    let mut known = known(service, &user, &device).await?;
    if is_retired(service, &known) {
        return Err(no_such_device());
    }
    let (name, now) = (request.name, service.ports.clock.now_ms());
    let noted =
        service.ports.devices.note(&user, &device, DeviceNote::Name(name.clone()), now).await;
    noted.map_err(|e| unavailable(&e))?;
    known.name = name;
    Ok(view(&known))
}

/// Ends a device's tokens: on return the revocation is in the log, which every host follows. A
/// retired device may still hold one, so it can be revoked too.
pub(crate) async fn revoke(
    service: &ConnectionService,
    request: v1::RevokeDeviceRequest,
) -> Result<v1::RevokeDeviceReply, Problem> {
    let (user, _) = caller(request.caller)?;
    let device: DeviceId = request.device_id.parse()?;
    let known = known(service, &user, &device).await?;
    // Only the last revocation of a device is kept, so it is never earlier than the one before,
    // whatever two processes' clocks say.
    let now = service.ports.clock.now_ms().max(known.revoked_ms);
    let revoked_at = now.div_euclid(1000);
    let record = Record {
        key: Bytes::from(format!("{user}/{device}")),
        value: v1::Revocation { revoked_at }.encode_to_vec().into(),
        timestamp_ms: now,
        record_type: "revocation",
        schema: SCHEMA,
        traceparent: None,
    };
    service.append(Topic::Revocations, Partition(0), record).await?;
    // From here on it has happened; whoever asks again writes the note, too.
    let noted = service.ports.devices.note(&user, &device, DeviceNote::Revoked, now).await;
    noted.map_err(|error| {
        tracing::warn!(%error, cause = ?error.source, "a revoked device is not noted as such");
        Problem::outcome_unknown()
    })?;
    metrics::counter!("chaski_devices_revoked_total").increment(1);
    Ok(v1::RevokeDeviceReply {})
}

async fn known(
    service: &ConnectionService,
    user: &UserId,
    device: &DeviceId,
) -> Result<KnownDevice, Problem> {
    let known = service.ports.devices.device(user, device).await.map_err(|e| unavailable(&e))?;
    known.ok_or_else(no_such_device)
}

fn no_such_device() -> Problem {
    Problem::new(404, "no_such_device", "you have no device of this id")
}

/// Whether a device does not count any more: away for too long, or revoked and not back since.
fn is_retired(service: &ConnectionService, device: &KnownDevice) -> bool {
    let idle_max = i64::from(service.device_idle_days) * DAY_MS;
    !device.is_in_use(service.ports.clock.now_ms(), idle_max)
}

fn view(device: &KnownDevice) -> v1::DeviceView {
    v1::DeviceView {
        device_id: device.row.device.to_string(),
        name: device.name.clone(),
        last_active: Some(Timestamp::from_ms(device.row.last_active_ms)),
        position: device.row.cursor.0,
    }
}

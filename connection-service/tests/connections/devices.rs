//! Devices: what is shown, renamed, revoked.

use crate::world::{IDLE_DAYS, NOW, World, caller};
use chaski_connection_service::ConnectionService;
use chaski_core::{Partition, Position};
use chaski_ports::{DeviceRow, Topic};
use chaski_proto::{
    Problem,
    v1::{self, connections_server::Connections},
};
use prost::Message as _;
use tonic::Request;

const DAY_MS: i64 = 86_400_000;

async fn seen(world: &World, device: &str, last_active_ms: i64) {
    let (user, device) = ("ana".parse().unwrap(), device.parse().unwrap());
    let row = DeviceRow { user, device, cursor: Position(7), last_active_ms };
    world.ports.devices.save_cursors(&[row]).await.unwrap();
}

async fn names(service: &ConnectionService) -> Vec<(String, String)> {
    let request = v1::DevicesRequest { caller: caller("ana") };
    let reply = service.list_devices(Request::new(request)).await.unwrap().into_inner();
    reply.devices.into_iter().map(|d| (d.device_id, d.name)).collect()
}

async fn rename(
    service: &ConnectionService,
    device: &str,
    name: &str,
) -> Result<v1::DeviceView, Problem> {
    let (device_id, name) = (device.into(), name.into());
    let request = v1::RenameDeviceRequest { caller: caller("ana"), device_id, name };
    let view = service.rename_device(Request::new(request)).await;
    view.map(tonic::Response::into_inner).map_err(Problem::from)
}

async fn revoke(service: &ConnectionService, device: &str) -> Result<(), Problem> {
    let request = v1::RevokeDeviceRequest { caller: caller("ana"), device_id: device.into() };
    service.revoke_device(Request::new(request)).await.map(drop).map_err(Problem::from)
}

#[tokio::test]
async fn devices_are_shown_until_they_are_idle_for_too_long() {
    let world = World::new().await;
    let service = world.service(world.ports.clone());
    let idle = i64::from(IDLE_DAYS) * DAY_MS;
    seen(&world, "laptop", NOW - idle).await;
    seen(&world, "old", NOW - idle - 1).await;
    seen(&world, "phone", NOW - 1).await;
    let shown = [("laptop".into(), String::new()), ("phone".into(), String::new())];
    assert_eq!(names(&service).await, shown);
    assert_eq!(rename(&service, "old", "x").await.unwrap_err().code, "no_such_device");
    world.end().await;
}

#[tokio::test]
async fn a_name_is_checked_at_the_limit_and_one_past_it() {
    let world = World::new().await;
    let service = world.service(world.ports.clone());
    seen(&world, "phone", NOW).await;
    let longest = "é".repeat(64);
    let view = rename(&service, "phone", &longest).await.unwrap();
    assert_eq!((view.name.as_str(), view.position), (longest.as_str(), 7));
    assert_eq!(view.last_active.unwrap().to_ms(), NOW);
    let problem = rename(&service, "phone", &"é".repeat(65)).await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_str()), (400, "invalid"));
    let problem = rename(&service, "tablet", "x").await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_str()), (404, "no_such_device"));
    assert_eq!(names(&service).await, [("phone".into(), longest)]);
    world.end().await;
}

#[tokio::test]
async fn a_revocation_is_in_the_log_and_ends_the_device_until_it_is_back() {
    let world = World::new().await;
    let service = world.service(world.ports.clone());
    assert_eq!(revoke(&service, "phone").await.unwrap_err().code, "no_such_device");
    seen(&world, "phone", NOW).await;
    revoke(&service, "phone").await.unwrap();
    assert!(names(&service).await.is_empty());
    // Once more by a process whose clock is behind: the time does not go back.
    world.clock.set(NOW - 5000);
    revoke(&service, "phone").await.unwrap();
    world.clock.set(NOW + 2000);
    let records = world.records(Topic::Revocations, Partition(0), 2).await;
    for record in records {
        assert_eq!(record.key, "ana/phone");
        let revocation = v1::Revocation::decode(record.value).unwrap();
        assert_eq!(revocation.revoked_at, NOW / 1000);
    }
    seen(&world, "phone", NOW + 1500).await;
    assert!(names(&service).await.is_empty(), "what it had acknowledged is saved late");
    seen(&world, "phone", NOW + 15_000).await;
    assert_eq!(names(&service).await.len(), 1, "it is back with a new token");
    world.end().await;
}

//! Devices: the limit counts those that are in use.

use crate::world::{DAY_MS, NOW, World, user};
use chaski_ports::DeviceNote;
use chaski_proto::{
    Problem,
    v1::{self, messages_server::Messages},
};
use tonic::Request;

#[tokio::test(flavor = "multi_thread")]
async fn l8_a_device_too_many_is_refused_until_one_is_retired_or_revoked() {
    let world = World::new().await;
    let service = world.serve();
    let ana = user("ana");
    let open = |device: &str| {
        let request = v1::Caller { user_id: "ana".into(), device_id: device.into() };
        let reply = service.messages.open_device(Request::new(request));
        async { reply.await.map(|reply| reply.into_inner().cursor).map_err(Problem::from) }
    };
    let refused = |answer: Result<u64, Problem>| answer.unwrap_err().code == "too_many_devices";
    assert_eq!(open("one").await, Ok(0));
    assert_eq!(open("two").await, Ok(0));
    assert_eq!(open("two").await, Ok(0), "it is known");
    assert!(refused(open("three").await));

    let two = "two".parse().unwrap();
    world.ports.devices.note(&ana, &two, DeviceNote::Revoked, NOW + 1000).await.unwrap();
    // What it had acknowledged before its socket was cut comes in late.
    world.clock.set(NOW + 3000);
    let acked = v1::Device { user_id: "ana".into(), device_id: "two".into(), cursor: 9 };
    let request = v1::SaveCursorsRequest { devices: vec![acked] };
    service.messages.save_cursors(Request::new(request)).await.unwrap();
    assert_eq!(open("three").await, Ok(0));
    world.clock.set(NOW + 60_000);
    assert!(refused(open("two").await), "with a new token it is one too many");

    // One is retired, and comes back when the other is.
    world.clock.set(NOW + 89 * DAY_MS);
    assert_eq!(open("three").await, Ok(0));
    world.clock.set(NOW + 91 * DAY_MS);
    assert_eq!(open("two").await, Ok(9));
    assert!(refused(open("one").await));
    world.clock.set(NOW + 180 * DAY_MS);
    assert_eq!(open("one").await, Ok(0));
    service.stop().await;
}

//! Follows the topic of revocations into the memory of this process: tokens issued before are
//! refused, and a delivery host closes the sockets that were opened with one.

use bytes::Bytes;
use chaski_auth::Revocations;
use chaski_core::{DeviceId, Offset, Partition, UserId};
use chaski_delivery_service::host::DeliveryHost;
use chaski_ports::{Clock, ErrorKind, Log, LogRecord, PortError, Topic};
use chaski_proto::v1;
use chaski_runtime::{CancellationToken, Gate};
use prost::Message as _;
use std::{convert::Infallible, sync::Arc, time::Duration};

const PARTITION: Partition = Partition(0);
/// Pause before reading again after a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// What follows the topic, and for whom.
pub(super) struct Tailer {
    pub(super) log: Arc<dyn Log>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) revocations: Revocations,
    pub(super) host: Option<Arc<DeliveryHost>>,
    /// Opened once everything that was revoked before is known.
    pub(super) known: Gate,
}

impl Tailer {
    /// Follows until `stop`. While the log is away, what is known stays in force.
    ///
    /// # Errors
    /// What does not pass by itself, such as a topic that is not there.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), PortError> {
        let mut next = None;
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Err(error) = self.follow(&mut next) => error,
            };
            match error.kind {
                // Compaction may have taken what stood there: noting one again changes nothing.
                ErrorKind::OutOfRange => next = None,
                _ if error.retryable() => {}
                _ => return Err(error),
            }
            tracing::warn!(%error, cause = ?error.source, "following revocations was interrupted");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn follow(&self, next: &mut Option<Offset>) -> Result<Infallible, PortError> {
        let bounds = self.log.bounds(Topic::Revocations, PARTITION).await?;
        let from = next.unwrap_or(bounds.start);
        let mut reader = self.log.reader(Topic::Revocations, PARTITION, from).await?;
        if from >= bounds.end {
            self.known.open();
        }
        loop {
            for record in reader.next().await? {
                self.note(&record);
                let behind = record.offset.next();
                *next = Some(behind);
                if behind >= bounds.end {
                    self.known.open();
                }
            }
        }
    }

    fn note(&self, record: &LogRecord) {
        let Some((user, device, revoked_at)) = read(&record.key, &record.value) else {
            // Every process reads it, so none of them buries it.
            return tracing::error!(offset = %record.offset, "a revocation cannot be read");
        };
        // The verifier first: who comes back at once must not get in.
        let now_s = self.clock.now_ms().div_euclid(1000);
        self.revocations.note(user.clone(), device.clone(), revoked_at, now_s);
        if let Some(host) = &self.host {
            host.revoke(&user, &device, revoked_at);
        }
    }
}

/// Whose device is revoked, and in which second; `None` where the record makes no sense.
fn read(key: &[u8], value: &Bytes) -> Option<(UserId, DeviceId, i64)> {
    let (user, device) = std::str::from_utf8(key).ok()?.split_once('/')?;
    let revocation = v1::Revocation::decode(value.clone()).ok()?;
    Some((user.parse().ok()?, device.parse().ok()?, revocation.revoked_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_auth::{AuthError, DevKey, Verifier};
    use chaski_backends::BackendOptions;
    use chaski_connection_service::{ConnectionService, ConnectionsConfig};
    use chaski_core::{Position, SourceId, placement::Placement};
    use chaski_ports::{DeviceRow, Ports, ProducePolicy, Record};
    use chaski_proto::{SCHEMA, v1::connections_server::Connections as _};
    use chaski_runtime::{Readiness, Tasks};

    const DAY: Duration = Duration::from_secs(86_400);

    async fn revoke(ports: &Ports, user: &UserId, device: &DeviceId) {
        let (cursor, last_active_ms) = (Position(0), ports.clock.now_ms());
        let row = DeviceRow { user: user.clone(), device: device.clone(), cursor, last_active_ms };
        ports.devices.save_cursors(&[row]).await.unwrap();
        let config = ConnectionsConfig::default();
        let service =
            ConnectionService::new(ports.clone(), Placement::new(1), SourceId(1), 90, config);
        let caller = v1::Caller { user_id: user.to_string(), device_id: device.to_string() };
        let (caller, device_id) = (Some(caller), device.to_string());
        let request = v1::RevokeDeviceRequest { caller, device_id };
        service.revoke_device(tonic::Request::new(request)).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_is_ready_once_it_refuses_what_was_revoked_and_goes_on_learning() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::config::Config { data: dir.path().into(), ..Default::default() };
        let urls = config.urls().unwrap();
        let options = BackendOptions::default();
        let ports = Box::pin(chaski_backends::open(&urls, &options)).await.unwrap();
        ports.log.create_topics(1).await.unwrap();
        let key = DevKey::load_or_create(dir.path().join("key.pem")).unwrap();
        let revocations = Revocations::default();
        let verifier = Verifier::new([key.public_pem()]).unwrap();
        let verifier = verifier.with_revocations(revocations.clone());
        let user: UserId = "ana".parse().unwrap();
        let (phone, laptop) = ("phone".parse().unwrap(), "laptop".parse().unwrap());
        let verify = |device: &DeviceId| {
            let now = ports.clock.now_ms();
            verifier.verify(&key.sign(&user, device, DAY, now - 10_000), now).err()
        };

        revoke(&ports, &user, &phone).await;
        let garbage = Record {
            key: Bytes::from_static(b"no device"),
            value: Bytes::new(),
            timestamp_ms: 0,
            record_type: "revocation",
            schema: SCHEMA,
            traceparent: None,
        };
        let producer = ports.log.producer(ProducePolicy::GiveUp).unwrap();
        producer.append(Topic::Revocations, PARTITION, garbage).unwrap().await.unwrap();
        assert_eq!(verify(&phone), None, "nobody has read it yet");

        let (tasks, readiness) = (Tasks::new(), Readiness::default());
        let tailer = Tailer {
            log: Arc::clone(&ports.log),
            clock: Arc::clone(&ports.clock),
            revocations: revocations.clone(),
            host: None,
            known: readiness.gate("revocations are known"),
        };
        tasks.spawn("revocations", tailer.run(tasks.stop()));
        tokio::time::timeout(Duration::from_secs(10), readiness.ready()).await.unwrap();
        assert_eq!(verify(&phone), Some(AuthError::Revoked));
        assert_eq!(verify(&laptop), None);

        revoke(&ports, &user, &laptop).await;
        let learnt = async {
            while verify(&laptop).is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), learnt).await.unwrap();
        assert_eq!(tasks.shut_down(Duration::from_secs(10)).await, None);
    }
}

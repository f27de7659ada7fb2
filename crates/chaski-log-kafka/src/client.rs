//! The life of a librdkafka client: its events are served by a thread of its own, and it is closed
//! by a thread, never on the runtime, because closing can take long or hang.
//!
//! Must not know: what the client is for.

use crate::error;
use chaski_ports::PortError;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::KafkaError,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tracing::{debug, error, info, warn};

/// How often a client's thread looks up from its events, so also how long a stop may take.
pub(crate) const TICK: Duration = Duration::from_secs(1);

const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// A consumer with its thread. Dropping it stops the thread, which closes the consumer.
pub(crate) struct PolledConsumer<C: ConsumerContext + 'static> {
    /// Taken by drop, before the thread is told: the thread's share is then the last one here.
    consumer: Option<Arc<BaseConsumer<C>>>,
    stop: Arc<AtomicBool>,
    broken: Arc<Mutex<Option<String>>>,
}

impl<C: ConsumerContext + 'static> PolledConsumer<C> {
    /// Makes the consumer. `tick` runs on its thread about once a second.
    pub(crate) fn start(
        config: &ClientConfig,
        context: C,
        tick: impl FnMut(&BaseConsumer<C>) + Send + 'static,
    ) -> Result<Self, PortError> {
        let consumer: BaseConsumer<C> =
            config.create_with_context(context).map_err(error::making)?;
        let polled = Self {
            consumer: Some(Arc::new(consumer)),
            stop: Arc::default(),
            broken: Arc::default(),
        };
        let (consumer, stop, broken) =
            (polled.consumer().clone(), polled.stop.clone(), polled.broken.clone());
        thread::Builder::new()
            .name("kafka-consumer".into())
            .spawn(move || serve(consumer, &stop, &broken, tick))
            .map_err(|e| error::making(KafkaError::ClientCreation(e.to_string())))?;
        Ok(polled)
    }

    pub(crate) fn consumer(&self) -> &Arc<BaseConsumer<C>> {
        self.consumer.as_ref().expect("only drop takes it")
    }

    /// Why nothing may be read through it any more, where that is so.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.lock().clone()
    }
}

impl<C: ConsumerContext + 'static> Drop for PolledConsumer<C> {
    fn drop(&mut self) {
        drop(self.consumer.take());
        self.stop.store(true, Ordering::Release);
    }
}

fn serve<C: ConsumerContext + 'static>(
    consumer: Arc<BaseConsumer<C>>,
    stop: &AtomicBool,
    broken: &Mutex<Option<String>>,
    mut tick: impl FnMut(&BaseConsumer<C>),
) {
    while !stop.load(Ordering::Acquire) {
        let due = Instant::now() + TICK;
        while let Some(event) = consumer.poll(due.saturating_duration_since(Instant::now())) {
            let cause = match event {
                // Every partition has a queue of its own, so none may come this way (L5).
                Ok(m) => format!("a stray record of {}/{}", m.topic(), m.partition()),
                Err(KafkaError::MessageConsumptionFatal(code)) => code.to_string(),
                Err(_) => continue, // the context has logged it; librdkafka tries again
            };
            error!(cause, "kafka consumer is broken, its readers start again");
            *broken.lock() = Some(cause);
        }
        tick(&consumer);
    }
    close("consumer", move || drop(consumer));
}

/// Runs `work`, which may block or hang, on a thread, and says so if it does not end.
pub(crate) fn close(what: &'static str, work: impl FnOnce() + Send + 'static) {
    let closing = metrics::gauge!("chaski_log_kafka_closing");
    closing.increment(1.0);
    let watch = move || {
        let (done, ended) = sync_channel::<()>(1);
        let worker = thread::Builder::new().name(format!("kafka-close-{what}")).spawn(move || {
            work();
            drop(done);
        });
        match worker {
            Ok(_) if ended.recv_timeout(CLOSE_PATIENCE) == Err(RecvTimeoutError::Timeout) => {
                error!(what, seconds = CLOSE_PATIENCE.as_secs(), "kafka client does not close");
            }
            Ok(_) => closing.decrement(1.0),
            Err(cause) => error!(what, %cause, "no thread to close a kafka client"),
        }
    };
    if let Err(cause) = thread::Builder::new().name("kafka-close".into()).spawn(watch) {
        error!(what, %cause, "no thread to close a kafka client");
    }
}

/// The context of a client that needs no callbacks: librdkafka's log goes to tracing.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(level, fac, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        event(&error, reason);
    }
}
impl ConsumerContext for Quiet {}

/// librdkafka calls "error" what it then mends by itself (a lost connection).
pub(crate) fn log(level: RDKafkaLogLevel, fac: &str, message: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        Emerg | Alert | Critical => error!(target: "librdkafka", fac, "{message}"),
        Error | Warning => warn!(target: "librdkafka", fac, "{message}"),
        Notice => info!(target: "librdkafka", fac, "{message}"),
        Info | Debug => debug!(target: "librdkafka", fac, "{message}"),
    }
}

/// An error event: whoever is hurt gets an error of their own, and the log has had a line.
pub(crate) fn event(error: &KafkaError, reason: &str) {
    debug!(target: "librdkafka", %error, "{reason}");
}

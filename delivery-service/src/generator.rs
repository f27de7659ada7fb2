//! The fan-out: one worker for each owned partition of `new-messages` folds it and appends every
//! recipient's record to `recipients`.
//!
//! At every moment a crash loses nothing: the cursor and the snapshots never pass the *frontier*,
//! the highest offset of which all outputs are acknowledged; what is computed again after a
//! restart is told from the first time by its origin (`chaski_core::origin`).

mod checkpoint;
mod config;
mod frontier;
mod worker;

pub use config::{GeneratorConfig, WhoManages};

use chaski_core::{Partition, SourceId, placement::Placement, record::Rules};
use chaski_ports::{CheckpointStore, Clock, Log, PortError};
use chaski_runtime::{CancellationToken, Owned, Restarts, Tasks, Work, run_owned};
use std::sync::Arc;
use tokio::sync::watch;

/// The role's name in claims, watermarks and assignments.
pub const ROLE: &str = "generator";

/// What the workers share.
#[derive(Clone)]
pub struct Generator {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Snapshots and cursors.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Time, for alerts and ticks only: the fold has none.
    pub clock: Arc<dyn Clock>,
    /// Where users are placed.
    pub placement: Placement,
    /// Names this `new-messages` log.
    pub source: SourceId,
    /// What chats are decided by; told to the fold by ticks.
    pub rules: Rules,
    /// What its partitions do and cost.
    pub work: Work,
    /// Settings.
    pub config: GeneratorConfig,
}

impl Generator {
    /// Folds the owned partitions until the tasks stop.
    pub async fn run(self, tasks: &Tasks, owned: watch::Receiver<Owned>) {
        run_owned(tasks, ROLE, owned, |partition, epoch, stop| {
            self.clone().fold_partition(partition, epoch, stop)
        })
        .await;
    }

    /// Folds one partition until `stop`; after a failure that may pass, starts again from the
    /// last checkpoint.
    async fn fold_partition(
        self,
        partition: Partition,
        epoch: u64,
        stop: CancellationToken,
    ) -> Result<(), PortError> {
        let restarts = Restarts {
            partition,
            what: "the fan-out starts again from its checkpoint",
            counter: "chaski_generator_restarts_total",
            pause: self.config.restart_delay(),
        };
        let passes = PortError::owner_may_retry;
        restarts.run(&stop, passes, || worker::run(&self, partition, epoch, &stop)).await
    }
}

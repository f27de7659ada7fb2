//! The frontier: the highest input offset such that all outputs of all inputs up to it are
//! acknowledged by the log.

use chaski_core::Offset;
use chaski_ports::{Appending, PortError};
use tokio::sync::{mpsc, watch};

/// An input whose outputs are on their way.
pub(super) struct Inflight {
    pub(super) offset: Offset,
    pub(super) outputs: Vec<Appending>,
}

/// Follows the outputs in the order of their inputs and moves the frontier; ends with the first
/// output that fails, since nothing after it may count (L5).
pub(super) async fn follow(
    mut inflight: mpsc::Receiver<Inflight>,
    frontier: watch::Sender<Option<Offset>>,
) -> Result<(), PortError> {
    while let Some(input) = inflight.recv().await {
        for output in input.outputs {
            output.await?;
        }
        frontier.send_replace(Some(input.offset));
    }
    Ok(())
}

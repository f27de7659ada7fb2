//! What whole-system tests share: a [`World`] that runs the whole system on either set of
//! backends, people's [`Device`]s on raw sockets, [`Caller`]s over HTTP, and the runner that makes
//! of each case, written once, a test for each set.
//!
//! Must not know: any service's insides. Everything goes through the contract, except for records
//! that a case puts into the log itself.

mod http;
mod link;
mod place;
mod process;
mod run;
mod socket;
mod world;

pub use http::{Answer, Caller};
pub use link::{Link, Lost};
pub use place::Set;
pub use process::Process;
pub use run::run;
pub use socket::{Device, Format, Heard, Socket};
pub use world::{Person, World};

use std::time::Duration;

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A short random text of letters and digits.
#[must_use]
pub fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}

/// Asks again until there is an answer.
///
/// # Panics
/// Where there is none within [`PATIENCE`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(answer) = look().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

//! What whole-system tests share: a [`World`] that runs the whole system on either set of
//! backends, people's [`Device`]s on raw sockets, [`Caller`]s over HTTP, and the runner that makes
//! of each case, written once, a test for each set.
//!
//! Must not know: any service's insides. Everything goes through the contract, except for records
//! that a case puts into the log itself.

mod http;
mod link;
mod parts;
mod place;
mod process;
mod run;
mod socket;
mod world;

pub use http::{Answer, Caller};
pub use link::{Link, Lost};
pub use parts::Parts;
pub use place::Set;
pub use process::Process;
pub use run::run;
pub use socket::{Device, Format, Heard, Socket};
pub use world::{Person, World};

use chaski_client::{Command, v1};
use std::time::Duration;
use tokio::time::Instant;

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How soon something that nobody tells of is looked for again.
const AGAIN: Duration = Duration::from_millis(50);

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
    let look = move || {
        let looking = look();
        async move { looking.await.ok_or_else(|| "it is not there".into()) }
    };
    eventually(what, look).await
}

/// Checks again until it is right: what is stored comes a little after what is shown, and nothing
/// tells when.
///
/// # Panics
/// Where it is not within [`PATIENCE`]; tells what was wrong at last.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(right) => return right,
            Err(wrong) => assert!(Instant::now() < deadline, "{what}: {wrong}, for {PATIENCE:?}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A message to a person: a text that is its own key.
#[must_use]
pub fn text_to(user: &str, key: &str) -> Command {
    Command::SendMessage(v1::SendMessage {
        target: Some(v1::send_message::Target::To(user.into())),
        client_message_id: key.into(),
        body: Some(v1::send_message::Body::Text(key.into())),
        ..Default::default()
    })
}

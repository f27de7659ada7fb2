//! The rules of chaski as pure data and functions: identifiers, records, the fan-out fold,
//! the origin filter, placement, and the laws L1-L8 by name.
//!
//! Must not know: tokio, I/O, a clock, randomness, or how anything is encoded. Everything here
//! can be replayed, simulated and tested in microseconds.

pub mod connection;
pub mod fold;
pub mod id;
pub mod law;
pub mod origin;
pub mod placement;
pub mod record;

pub use id::{ChatId, ClientId, DeviceId, IllegalId, MessageId, UserId};
pub use law::Law;
pub use origin::{Offset, Origin, Partition, Position, SourceId, Verdict, Watermark};

//! What the documents of the API say beside the schema: the calls of HTTP ([`ROUTES`]), and the
//! examples of calls and frames, told as one [`story`].
//!
//! Two tests use it. The one of this crate makes `docs/api/openapi.json` and `docs/api/frames.md`
//! of it and of the schema, and fails where the committed ones differ. The one in
//! `tests/tests/examples.rs` tells the story to a running server.
//!
//! Must not know: any service, nor how a document is written.

mod example;
mod known;
mod routes;
mod story;

pub use example::{Example, Step};
pub use known::Known;
pub use routes::{Answer, Item, Method, Parameter, ROUTES, Route, Shape};
pub use story::story;

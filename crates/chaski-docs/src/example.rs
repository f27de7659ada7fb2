//! What an example is made of. `{name}` in any text is filled as [`crate::Known`] says.

/// An example: a step of the story.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// Names it; unique.
    pub name: &'static str,
    /// What it shows, for people.
    pub shows: &'static str,
    /// What happens.
    pub step: Step,
}

/// What happens in a step. A device is written `user/device`.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A call by HTTP, and its answer.
    Call {
        /// Who calls; nobody known where it is empty.
        by: &'static str,
        /// The id of its [`crate::Route`].
        route: &'static str,
        /// Path and query.
        path: &'static str,
        /// `Chaski-Token` of the request; empty: none.
        seeing: &'static str,
        /// JSON; empty: none.
        body: &'static str,
        /// The answer's status.
        status: u16,
        /// The answer's JSON; empty: none.
        answer: &'static str,
        /// `Chaski-Token` of the answer; empty: none.
        token: &'static str,
    },
    /// A client's frame, and the reply. `hello` opens the device's socket.
    Frame {
        /// Who says it.
        by: &'static str,
        /// JSON.
        frame: &'static str,
        /// JSON; empty: there is none.
        reply: &'static str,
    },
    /// A frame that a device is sent without having asked for it.
    Event {
        /// Who hears it.
        to: &'static str,
        /// JSON.
        frame: &'static str,
    },
    /// The server closes a device's socket.
    Closed {
        /// Whose.
        to: &'static str,
        /// The close code.
        code: u16,
    },
    /// The server drains; the steps after it are what it says meanwhile.
    Drain,
}

//! The examples, in the order in which a test tells them to a running server: three people who
//! have never met, one chat of all and one of two.
//!
//! Must not know: how the documents look. An answer stands here exactly as the server gives it;
//! `{name}` stands for what differs from run to run (see [`crate::Known`]).

mod change;
mod part;
mod talk;

use crate::{Example, Step};

/// All examples, in order.
pub fn story() -> impl Iterator<Item = &'static Example> {
    [talk::EXAMPLES, change::EXAMPLES, part::EXAMPLES].into_iter().flatten()
}

const fn frame(
    name: &'static str,
    shows: &'static str,
    by: &'static str,
    frame: &'static str,
    reply: &'static str,
) -> Example {
    Example { name, shows, step: Step::Frame { by, frame, reply } }
}

const fn event(
    name: &'static str,
    shows: &'static str,
    to: &'static str,
    frame: &'static str,
) -> Example {
    Example { name, shows, step: Step::Event { to, frame } }
}

/// A call that looks, after the write of the token `seeing`.
const fn look(
    (route, name): (&'static str, &'static str),
    shows: &'static str,
    by: &'static str,
    path: &'static str,
    seeing: &'static str,
    answer: &'static str,
) -> Example {
    let (body, status, token) = ("", 200, "");
    Example {
        name,
        shows,
        step: Step::Call { by, route, path, seeing, body, status, answer, token },
    }
}

/// A call that changes something, and its token.
const fn write(
    (route, name): (&'static str, &'static str),
    shows: &'static str,
    by: &'static str,
    (path, body): (&'static str, &'static str),
    (status, answer): (u16, &'static str),
    token: &'static str,
) -> Example {
    let seeing = "";
    Example {
        name,
        shows,
        step: Step::Call { by, route, path, seeing, body, status, answer, token },
    }
}

/// A call that is refused.
const fn refused(
    (route, name): (&'static str, &'static str),
    shows: &'static str,
    by: &'static str,
    (path, body): (&'static str, &'static str),
    (status, answer): (u16, &'static str),
) -> Example {
    write((route, name), shows, by, (path, body), (status, answer), "")
}

//! ZooKeeper's errors as the port's.

use chaski_ports::{ErrorKind, PortError};
use zookeeper_client as zk;

/// Whether a call could have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Whether the connection failed under the call. A closed one comes as `ConnectionLoss`, but a
/// reset or silent one as whatever the socket said.
pub(crate) fn connection_lost(error: &zk::Error) -> bool {
    use zk::Error as E;
    matches!(error, E::ConnectionLoss | E::Custom(_))
}

/// Whether the session is over for good.
pub(crate) fn session_over(error: &zk::Error) -> bool {
    use zk::Error as E;
    matches!(error, E::SessionExpired | E::SessionMoved | E::ClientClosed | E::AuthFailed)
}

pub(crate) fn port_error(error: zk::Error, access: Access, context: String) -> PortError {
    use zk::Error as E;
    let (kind, context) = match &error {
        E::NodeExists | E::BadVersion | E::NotEmpty | E::RuntimeInconsistent => {
            (ErrorKind::Conflict, context)
        }
        E::NoNode => (ErrorKind::NotFound, context),
        E::Throttled | E::NotReadOnly | E::NoHosts => (ErrorKind::Unavailable, context),
        // Not Conflict: that would read as "somebody else was first".
        lost if session_over(lost) => {
            (kind_of_lost(access), format!("{context}: the session has ended"))
        }
        E::ConnectionLoss
        | E::Custom(_)
        | E::Timeout
        | E::UnexpectedError(_)
        | E::UnmarshalError { .. } => (kind_of_lost(access), context),
        _ => (ErrorKind::Invalid, context),
    };
    PortError::new(kind, context).caused_by(error)
}

/// Of a call that may or may not have arrived.
fn kind_of_lost(access: Access) -> ErrorKind {
    match access {
        Access::Read => ErrorKind::Unavailable,
        Access::Write => ErrorKind::Unknown,
    }
}

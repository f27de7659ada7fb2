//! The write token (`Chaski-Token`): names a record of the log, so that a reader can wait until
//! that record's effects are visible to it.

use crate::Malformed;
use chaski_core::{Offset, Partition};
use std::{fmt, str::FromStr};

/// Names a write. Opaque to clients; written `<kind>.<partition>.<offset>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteToken {
    /// A record of `new-messages`: visible once what the fan-out made of it is. Kind 1.
    Submitted(Partition, Offset),
    /// A record of `recipients` itself. Kind 2.
    Told(Partition, Offset),
}

impl fmt::Display for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted(partition, offset) => write!(f, "1.{partition}.{offset}"),
            Self::Told(partition, offset) => write!(f, "2.{partition}.{offset}"),
        }
    }
}

impl FromStr for WriteToken {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split('.');
        let mut number = || parts.next().and_then(|p| p.parse::<u64>().ok());
        match (number(), number().map(u32::try_from), number(), parts.next()) {
            (Some(1), Some(Ok(partition)), Some(offset), None) => {
                Ok(Self::Submitted(Partition(partition), Offset(offset)))
            }
            (Some(2), Some(Ok(partition)), Some(offset), None) => {
                Ok(Self::Told(Partition(partition), Offset(offset)))
            }
            _ => Err(Malformed::because("Chaski-Token is not one that this server gave")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_and_nothing_else_does() {
        for token in [
            WriteToken::Submitted(Partition(3), Offset(77)),
            WriteToken::Told(Partition(3), Offset(77)),
        ] {
            assert_eq!(token.to_string().parse::<WriteToken>().unwrap(), token);
        }
        for bad in ["", "1", "1.2", "3.3.4", "1.3.4.5", "1.-3.4", "1.99999999999.4"] {
            assert!(bad.parse::<WriteToken>().is_err(), "{bad}");
        }
    }
}

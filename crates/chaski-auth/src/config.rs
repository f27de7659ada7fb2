//! What tokens must be like.

use serde::{Deserialize, Serialize};

/// What tokens must be like.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The longest life of a token, from `iat` to `exp`, in days; one with a longer life is
    /// refused. So long a revocation has to be remembered: raising it later brings back to life
    /// what was revoked and forgotten.
    pub token_days_max: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { token_days_max: 400 }
    }
}

//! Who is calling: tokens (JWT, signed with Ed25519) to identities, what has been revoked, and the
//! key that development mode signs with.
//!
//! Must not know: HTTP, sockets, the machine's clock, where revocations come from, or what an
//! identity may do.

mod config;
mod dev_key;
mod revocations;
mod verifier;

pub use config::AuthConfig;
pub use dev_key::DevKey;
pub use revocations::Revocations;
pub use verifier::{AuthError, CLOCK_SKEW_S, Identity, TOKEN_BYTES_MAX, Verifier};

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not a PEM of an Ed25519 key of the kind asked for.
    #[error("not an Ed25519 {0} in PEM")]
    NotEd25519(&'static str),
    /// There is no key to verify with.
    #[error("no public key is configured: every token would be refused")]
    None,
    /// The key's file cannot be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The system gave no randomness.
    #[error("no key could be generated")]
    Generate,
}

/// Chooses the cryptography that tokens are signed and verified with. To be called first in
/// `main`, because the library panics where it cannot tell which one is meant; later calls change
/// nothing.
pub fn install_crypto_provider() {
    // An error says that a provider is installed already, which is what is wanted.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

//! Verifies tokens: EdDSA only, every claim required, no longer a life than agreed, not revoked;
//! time is given by the caller.

use crate::{KeyError, Revocations, install_crypto_provider};
use chaski_core::{DeviceId, UserId, record::UnixMs};
use chaski_proto::Problem;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// Longer tokens are refused before they are read.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// `iat` and `nbf` may lie this far ahead: the clocks of the issuer and of this server differ.
/// `exp` has no leeway: a token is refused from that second on.
pub const CLOCK_SKEW_S: i64 = 5;

/// The last second of the year 9999: times behind it cannot be written in RFC 3339. A token that
/// gives milliseconds where seconds are asked for lands far behind it, too.
const LAST_SECOND: i64 = 253_402_300_799;

/// Verifies tokens against a set of public keys (several while one replaces another).
pub struct Verifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
    revocations: Revocations,
}

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `sub`.
    pub user: UserId,
    /// `device`.
    pub device: DeviceId,
    /// `iat`, in seconds: compared with revocations.
    pub issued_at: i64,
    /// `exp`, in seconds: the first second at which the token is refused.
    pub expires_at: i64,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not a JWT.
    #[error("the token is not a JWT")]
    Malformed,
    /// Not signed with EdDSA.
    #[error("the token must be signed with EdDSA (Ed25519)")]
    Algorithm,
    /// Not signed with a key that this server knows.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing or not what it must be.
    #[error(
        "the token's claims are wrong: sub, device, iat and exp are required, times in seconds"
    )]
    Claims,
    /// `sub` or `device` is not a legal id.
    #[error("the token names an illegal id: {0}")]
    Id(#[from] chaski_core::IllegalId),
    /// Made for somebody else (`aud`), or under rules that this server does not know (`crit`).
    #[error("the token is not meant for this server")]
    NotForUs,
    /// `iat` or `nbf` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// From `iat` to `exp` is longer than a token may live: it could outlive its revocation.
    #[error("the token's life is longer than this server takes")]
    LivesTooLong,
    /// Issued before its device was revoked, or in that second.
    #[error("the device was revoked after this token was issued: get a new one")]
    Revoked,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let code = match error {
            AuthError::Expired => "token_expired",
            AuthError::Revoked => "revoked",
            _ => "unauthenticated",
        };
        Self::new(401, code, error.to_string())
    }
}

impl Verifier {
    /// A verifier that takes tokens signed with any of these public keys (PEM, Ed25519), whose life
    /// is not longer than the default of [`AuthConfig`](crate::AuthConfig), and which knows of no
    /// revocation.
    ///
    /// # Errors
    /// Where there is no key, or one is of another kind.
    pub fn new<K: AsRef<str>>(public_keys: impl IntoIterator<Item = K>) -> Result<Self, KeyError> {
        install_crypto_provider();
        let keys = public_keys
            .into_iter()
            .map(|pem| DecodingKey::from_ed_pem(pem.as_ref().as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| KeyError::NotEd25519("public key"))?;
        if keys.is_empty() {
            return Err(KeyError::None);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The library would ask the machine's clock, with a minute of leeway: times are checked
        // here. `validate_aud` stays on: without a configured audience a token that names one is
        // refused (RFC 7519, 4.1.3).
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Ok(Self { keys, validation, revocations: Revocations::default() })
    }

    /// The same, refusing what these revocations refuse, now and later.
    #[must_use]
    pub fn with_revocations(mut self, revocations: Revocations) -> Self {
        self.revocations = revocations;
        self
    }

    /// Who the token speaks for at `now_ms`.
    pub fn verify(&self, token: &str, now_ms: UnixMs) -> Result<Identity, AuthError> {
        let claims = self.read(token)?;
        let now = now_ms.div_euclid(1000);
        if claims.exp.0 <= now {
            return Err(AuthError::Expired);
        }
        let begins = claims.nbf.map_or(claims.iat.0, |nbf| nbf.0.max(claims.iat.0));
        if begins > now.saturating_add(CLOCK_SKEW_S) {
            return Err(AuthError::NotYetValid);
        }
        if claims.exp.0 - claims.iat.0 > self.revocations.token_life_s() {
            return Err(AuthError::LivesTooLong);
        }
        let identity = Identity {
            user: claims.sub.parse()?,
            device: claims.device.parse()?,
            issued_at: claims.iat.0,
            expires_at: claims.exp.0,
        };
        match self.revocations.refuse(&identity) {
            true => Err(AuthError::Revoked),
            false => Ok(identity),
        }
    }

    /// Whether somebody whom another process has let in would be let in here at `now_ms`.
    ///
    /// # Errors
    /// Where their token has expired, or is revoked.
    pub fn recheck(&self, identity: &Identity, now_ms: UnixMs) -> Result<(), AuthError> {
        if identity.expires_at <= now_ms.div_euclid(1000) {
            return Err(AuthError::Expired);
        }
        match self.revocations.refuse(identity) {
            true => Err(AuthError::Revoked),
            false => Ok(()),
        }
    }

    /// The claims of a token that one of the keys has signed.
    fn read(&self, token: &str) -> Result<Claims, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::TooLong);
        }
        let mut refusal = AuthError::Signature;
        for key in &self.keys {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                Ok(read) if read.header.crit.is_some() => return Err(AuthError::NotForUs),
                Ok(read) => return Ok(read.claims),
                Err(error) => refusal = refusal_of(token, error.kind()),
            }
            // Only another key can make a wrong signature right.
            if refusal != AuthError::Signature {
                break;
            }
        }
        Err(refusal)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

fn refusal_of(token: &str, kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => AuthError::Algorithm,
        ErrorKind::InvalidAudience => AuthError::NotForUs,
        // The header is read before the signature is checked, the claims after it: where the
        // header can be read, it is the claims that cannot.
        ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_)
            if jsonwebtoken::decode_header(token).is_ok() =>
        {
            AuthError::Claims
        }
        _ => AuthError::Malformed,
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    device: String,
    iat: Seconds,
    exp: Seconds,
    nbf: Option<Seconds>,
}

/// A `NumericDate` (RFC 7519, 2): a JSON number, possibly with a fraction, which is cut off.
#[derive(Clone, Copy)]
struct Seconds(i64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?.floor();
        if (0.0..=LAST_SECOND as f64).contains(&seconds) {
            Ok(Self(seconds as i64))
        } else {
            Err(de::Error::custom("not a time in seconds"))
        }
    }
}

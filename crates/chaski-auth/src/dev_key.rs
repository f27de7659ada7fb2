//! The key of development mode: generated on first use, kept in a file that only its owner reads.

use crate::{KeyError, install_crypto_provider};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use chaski_core::{DeviceId, UserId, record::UnixMs};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use std::{
    fmt, fs,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

/// What stands before the 32 bytes of an Ed25519 public key in its `SubjectPublicKeyInfo`
/// (RFC 8410, 4).
const PUBLIC_KEY_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs tokens in development mode and for tests.
pub struct DevKey {
    signing: EncodingKey,
    public_pem: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    device: &'a str,
    iat: i64,
    exp: i64,
}

impl DevKey {
    /// The key in this file (PKCS#8 PEM), which is made, with mode 0600, where it is not there.
    /// Of several processes that begin at once, one makes the key and all get it.
    ///
    /// # Errors
    /// Where the file cannot be read or written, or holds something else.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let failed = |source| KeyError::File { path: path.display().to_string(), source };
        match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, &generate()?).map_err(failed)?;
                Self::from_pem(&fs::read_to_string(path).map_err(failed)?)
            }
            read => Self::from_pem(&read.map_err(failed)?),
        }
    }

    /// The key in this PEM (PKCS#8).
    ///
    /// # Errors
    /// Where it is not an Ed25519 private key.
    pub fn from_pem(private_pem: &str) -> Result<Self, KeyError> {
        install_crypto_provider();
        let wrong = || KeyError::NotEd25519("private key");
        let signing = EncodingKey::from_ed_pem(private_pem.as_bytes()).map_err(|_| wrong())?;
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(signing.as_bytes()).map_err(|_| wrong())?;
        let spki = [PUBLIC_KEY_PREFIX.as_slice(), pair.public_key().as_ref()].concat();
        Ok(Self { signing, public_pem: pem::encode(&pem::Pem::new("PUBLIC KEY", spki)) })
    }

    /// A token for this device, valid from `now_ms` for `ttl` (whole seconds).
    #[must_use]
    pub fn sign(&self, user: &UserId, device: &DeviceId, ttl: Duration, now_ms: UnixMs) -> String {
        let iat = now_ms.div_euclid(1000);
        let exp = iat.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims { sub: user.as_str(), device: device.as_str(), iat, exp };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.signing)
            .expect("an Ed25519 key that was read signs any bytes")
    }

    /// The public key (PEM), for a [`Verifier`](crate::Verifier).
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }
}

impl fmt::Debug for DevKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevKey").finish_non_exhaustive()
    }
}

fn generate() -> Result<String, KeyError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
    // Version 1 of PKCS#8, without the public key: what openssl reads and writes.
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
    Ok(pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref())))
}

/// Puts a complete file in place, or leaves the one that is there.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => fs::File::open(folder)?.sync_all(),
    }
}

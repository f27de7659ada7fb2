//! Tokens that are taken, and everything else, which is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use chaski_auth::{
    AuthConfig, AuthError, CLOCK_SKEW_S, DevKey, KeyError, Revocations, TOKEN_BYTES_MAX, Verifier,
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt as _, time::Duration};

const NOW: i64 = 1_800_000_000;

/// A key as its owner has it, and the verifier that knows its public half.
struct Issuer {
    private_pem: String,
    key: DevKey,
    verifier: Verifier,
}

impl Issuer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev/key.pem");
        let key = DevKey::load_or_create(&path).unwrap();
        let private_pem = std::fs::read_to_string(path).unwrap();
        let verifier = Verifier::new([key.public_pem()]).unwrap();
        Self { private_pem, key, verifier }
    }

    /// Signs whatever it is given.
    fn sign(&self, header: &Value, claims: &[u8]) -> String {
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims));
        let key = EncodingKey::from_ed_pem(self.private_pem.as_bytes()).unwrap();
        let signature = crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    /// Well signed; `change` spoils the claims.
    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = good_claims();
        change(&mut claims);
        self.sign(&json!({"alg": "EdDSA", "typ": "JWT"}), claims.to_string().as_bytes())
    }
}

fn good_claims() -> Value {
    json!({"sub": "alice", "device": "phone", "iat": NOW - 10, "exp": NOW + 60})
}

fn without(claim: &'static str) -> impl FnOnce(&mut Value) {
    move |claims| drop(claims.as_object_mut().unwrap().remove(claim))
}

fn with(claim: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |claims| claims[claim] = value
}

/// Under its own header and signed with HMAC, the secret being `secret`.
fn hmac(alg: Algorithm, secret: &[u8]) -> String {
    let header = json!({"alg": format!("{alg:?}")}).to_string();
    let message = format!("{}.{}", B64.encode(header), B64.encode(good_claims().to_string()));
    let signature =
        crypto::sign(message.as_bytes(), &EncodingKey::from_secret(secret), alg).unwrap();
    format!("{message}.{signature}")
}

#[test]
fn a_hostile_token_is_refused_for_what_is_wrong_with_it() {
    use AuthError as E;
    let issuer = Issuer::new();
    let stranger = Issuer::new();
    let good = issuer.token(|_| {});
    let public = issuer.key.public_pem();
    let public_der = pem::parse(public).unwrap().into_contents();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let unsigned = |alg: &str| {
        let header = B64.encode(json!({"alg": alg}).to_string());
        format!("{header}.{}.", B64.encode(good_claims().to_string()))
    };
    let claims = |text: &str| issuer.sign(&json!({"alg": "EdDSA"}), text.as_bytes());
    let last = signature.chars().last().unwrap();
    let sibling = if last == 'A' { 'B' } else { char::from_u32(last as u32 + 1).unwrap() };
    let mut flipped = B64.decode(signature).unwrap();
    flipped[5] ^= 1;

    let table: Vec<(&str, String, E)> = vec![
        ("empty", String::new(), E::Malformed),
        ("garbage", "not a token".into(), E::Malformed),
        ("three parts of garbage", "a.b.c".into(), E::Malformed),
        ("not ASCII", "é.é.é".into(), E::Malformed),
        ("alg none, no signature", unsigned("none"), E::Malformed),
        ("alg None, spelled otherwise", unsigned("nOnE"), E::Malformed),
        ("alg EdDSA, no signature", unsigned("EdDSA"), E::Signature),
        (
            "the public key's PEM as HMAC secret",
            hmac(Algorithm::HS256, public.as_bytes()),
            E::Algorithm,
        ),
        ("the public key's DER as HMAC secret", hmac(Algorithm::HS512, &public_der), E::Algorithm),
        (
            "the public key's bytes as HMAC secret",
            hmac(Algorithm::HS256, &public_der[12..]),
            E::Algorithm,
        ),
        ("header says ES256", issuer.sign(&json!({"alg": "ES256"}), b"{}"), E::Algorithm),
        ("header without alg", issuer.sign(&json!({"typ": "JWT"}), b"{}"), E::Malformed),
        ("another key", stranger.token(|_| {}), E::Signature),
        (
            "its own key in the header",
            {
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA",
                "x": B64.encode(&pem::parse(stranger.key.public_pem()).unwrap().contents()[12..])});
                let claims = good_claims().to_string();
                stranger.sign(&json!({"alg": "EdDSA", "jwk": jwk}), claims.as_bytes())
            },
            E::Signature,
        ),
        (
            "an unknown critical extension",
            issuer.sign(
                &json!({"alg": "EdDSA", "crit": ["exp2"], "exp2": 1}),
                good_claims().to_string().as_bytes(),
            ),
            E::NotForUs,
        ),
        ("one bit of the signature", format!("{message}.{}", B64.encode(flipped)), E::Signature),
        (
            "the claims of another token",
            {
                let other = issuer.token(with("sub", json!("mallory")));
                format!("{}.{signature}", other.rsplit_once('.').unwrap().0)
            },
            E::Signature,
        ),
        ("truncated signature", good[..good.len() - 2].into(), E::Signature),
        ("no signature", message.into(), E::Malformed),
        ("a trailing byte", format!("{good}A"), E::Signature),
        ("a trailing newline", format!("{good}\n"), E::Malformed),
        ("padding", format!("{good}=="), E::Malformed),
        (
            "unused bits of the last character",
            format!("{}{sibling}", &good[..good.len() - 1]),
            E::Malformed,
        ),
        ("a fourth part", format!("{good}.x"), E::Malformed),
        ("huge", format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), E::TooLong),
        ("expired", issuer.token(with("exp", json!(NOW - 1))), E::Expired),
        ("expired this second", issuer.token(with("exp", json!(NOW))), E::Expired),
        ("issued ahead", issuer.token(with("iat", json!(NOW + CLOCK_SKEW_S + 1))), E::NotYetValid),
        ("not before", issuer.token(with("nbf", json!(NOW + CLOCK_SKEW_S + 1))), E::NotYetValid),
        ("exp as a string", issuer.token(with("exp", json!((NOW + 60).to_string()))), E::Claims),
        ("iat as a string", issuer.token(with("iat", json!("1"))), E::Claims),
        ("nbf as a string", issuer.token(with("nbf", json!("1"))), E::Claims),
        ("exp in milliseconds", issuer.token(with("exp", json!((NOW + 60) * 1000))), E::Claims),
        ("exp negative", issuer.token(with("exp", json!(-1))), E::Claims),
        ("exp null", issuer.token(with("exp", Value::Null)), E::Claims),
        ("without sub", issuer.token(without("sub")), E::Claims),
        ("without device", issuer.token(without("device")), E::Claims),
        ("without iat", issuer.token(without("iat")), E::Claims),
        ("without exp", issuer.token(without("exp")), E::Claims),
        ("sub a number", issuer.token(with("sub", json!(7))), E::Claims),
        (
            "exp twice",
            claims(&good_claims().to_string().replacen('{', "{\"exp\":9999999999,", 1)),
            E::Claims,
        ),
        ("claims not an object", claims("[]"), E::Claims),
        ("claims not JSON", claims("{"), E::Claims),
        ("for another audience", issuer.token(with("aud", json!("another"))), E::NotForUs),
    ];
    for (name, token, refusal) in table {
        assert_eq!(issuer.verifier.verify(&token, NOW * 1000), Err(refusal), "{name}");
    }
    for (claim, id) in
        [("sub", ""), ("sub", "a b"), ("sub", "ünal"), ("device", "a/b"), ("device", "\0")]
    {
        let refusal = issuer.verifier.verify(&issuer.token(with(claim, json!(id))), NOW * 1000);
        assert!(matches!(refusal, Err(E::Id(_))), "{claim} {id:?}: {refusal:?}");
    }
    let long = issuer.token(with("sub", json!("a".repeat(65))));
    assert!(matches!(issuer.verifier.verify(&long, NOW * 1000), Err(E::Id(_))));
}

#[test]
fn a_good_token_is_taken_up_to_its_last_millisecond() {
    let issuer = Issuer::new();
    let token = issuer.token(|_| {});
    let end = (NOW + 60) * 1000;
    let identity = issuer.verifier.verify(&token, end - 1).unwrap();
    assert_eq!((identity.user.as_str(), identity.device.as_str()), ("alice", "phone"));
    assert_eq!((identity.issued_at, identity.expires_at), (NOW - 10, NOW + 60));
    assert_eq!(issuer.verifier.verify(&token, end), Err(AuthError::Expired));

    for (name, change) in [("iat", NOW + CLOCK_SKEW_S), ("nbf", NOW + CLOCK_SKEW_S)] {
        let ahead = issuer.token(with(name, json!(change)));
        issuer.verifier.verify(&ahead, NOW * 1000).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let fraction = issuer.token(with("exp", json!(NOW as f64 + 1.5)));
    assert_eq!(issuer.verifier.verify(&fraction, NOW * 1000).unwrap().expires_at, NOW + 1);
    let extra = issuer.token(with("name", json!({"any": [1]})));
    assert!(issuer.verifier.verify(&extra, NOW * 1000).is_ok());
}

#[test]
fn any_of_the_keys_will_do_and_a_wrong_one_is_refused_at_the_start() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let both = Verifier::new([old.key.public_pem(), new.key.public_pem()]).unwrap();
    for issuer in [&old, &new] {
        assert!(both.verify(&issuer.token(|_| {}), NOW * 1000).is_ok());
    }
    assert!(matches!(Verifier::new([""; 0]), Err(KeyError::None)));
    for wrong in ["", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", &old.private_pem] {
        assert!(matches!(Verifier::new([wrong]), Err(KeyError::NotEd25519(_))), "{wrong}");
    }
    assert!(matches!(DevKey::from_pem(old.key.public_pem()), Err(KeyError::NotEd25519(_))));
}

#[test]
fn the_dev_key_is_made_once_and_only_its_owner_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/dev.pem");
    let keys: Vec<String> = std::thread::scope(|scope| {
        let load = || DevKey::load_or_create(&path).unwrap().public_pem().to_owned();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "all got one key");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "no half-made file is left");

    let key = DevKey::load_or_create(&path).unwrap();
    let (user, device) = ("alice".parse().unwrap(), "phone".parse().unwrap());
    let token = key.sign(&user, &device, Duration::from_secs(60), NOW * 1000 + 999);
    let identity =
        Verifier::new([key.public_pem()]).unwrap().verify(&token, NOW * 1000 + 999).unwrap();
    assert_eq!((identity.user, identity.device), (user, device));
    assert_eq!((identity.issued_at, identity.expires_at), (NOW, NOW + 60));

    std::fs::write(&path, "something else").unwrap();
    assert!(matches!(DevKey::load_or_create(&path), Err(KeyError::NotEd25519(_))));
}

#[test]
fn a_revoked_device_needs_a_token_of_a_later_second() {
    let issuer = Issuer::new();
    let revocations = Revocations::default();
    let verifier = Verifier::new([issuer.key.public_pem()]).unwrap();
    let verifier = verifier.with_revocations(revocations.clone());
    let note = |user: &str, device: &str, at| {
        revocations.note(user.parse().unwrap(), device.parse().unwrap(), at, NOW);
    };
    let outcome = |iat| {
        let token = issuer.token(with("iat", json!(iat)));
        verifier.verify(&token, NOW * 1000).err()
    };
    note("alice", "laptop", NOW);
    note("bob", "phone", NOW);
    assert_eq!(outcome(NOW - 8), None, "another device, another user");
    // Somebody whom another process let in is looked at again.
    let let_in = verifier.verify(&issuer.token(with("iat", json!(NOW - 8))), NOW * 1000).unwrap();
    let again = |at_s: i64| verifier.recheck(&let_in, at_s * 1000);
    assert_eq!(again(let_in.expires_at - 1), Ok(()));
    assert_eq!(again(let_in.expires_at), Err(AuthError::Expired));
    note("alice", "phone", NOW - 7);
    assert_eq!(again(NOW), Err(AuthError::Revoked));
    note("alice", "phone", NOW - 9); // an older one, read later, takes nothing back
    for (iat, refusal) in
        [(NOW - 8, Some(AuthError::Revoked)), (NOW - 7, Some(AuthError::Revoked)), (NOW - 6, None)]
    {
        assert_eq!(outcome(iat), refusal, "iat {}", iat - NOW);
    }
    let problem = chaski_proto::Problem::from(AuthError::Revoked);
    assert_eq!((problem.status, problem.code.as_str()), (401, "revoked"));
}

#[test]
fn a_revocation_is_remembered_as_long_as_a_token_may_live_and_none_may_live_longer() {
    const DAY: i64 = 86_400;
    let issuer = Issuer::new();
    let revocations = Revocations::new(&AuthConfig { token_days_max: 2 });
    let verifier = Verifier::new([issuer.key.public_pem()]).unwrap();
    let verifier = verifier.with_revocations(revocations.clone());
    let living = |seconds| issuer.token(with("exp", json!(NOW - 10 + seconds)));
    assert!(verifier.verify(&living(2 * DAY), NOW * 1000).is_ok());
    let refusal = verifier.verify(&living(2 * DAY + 1), NOW * 1000);
    assert_eq!(refusal, Err(AuthError::LivesTooLong));

    // The last second in which a token that it refuses has not expired, and the one after it.
    let note = |device: &str, at, now| {
        revocations.note("alice".parse().unwrap(), device.parse().unwrap(), at, now);
    };
    note("phone", NOW, NOW);
    note("late", NOW, NOW + 2 * DAY);
    assert_eq!(revocations.remembered(), 2);
    note("too-late", NOW, NOW + 2 * DAY + 1);
    assert_eq!(revocations.remembered(), 2);
    // Looked through once a day's worth has come together.
    note("new", NOW + 4 * DAY, NOW + 4 * DAY);
    assert_eq!(revocations.remembered(), 1);
}

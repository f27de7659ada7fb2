//! As whom a client command speaks, and to which server: its flags, its tokens, and errors that
//! say what to do.

use crate::config::Config;
use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chaski_auth::DevKey;
use chaski_client::{Error, Event, Format, HttpError, Token, TokenProvider, v1};
use chaski_core::{ChatId, DeviceId, UserId};
use chaski_ports::{Clock as _, SystemClock};
use clap::Args;
use std::{io::BufRead as _, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

/// Tokens that a command signs for itself; renewed a little before they end.
const TTL: Duration = Duration::from_secs(600);
/// How long the first connection may take.
const REACH_MAX: Duration = Duration::from_secs(5);
/// Lines of standard input that are read ahead.
const LINES_AHEAD: usize = 16;

#[derive(Args)]
pub(super) struct Identity {
    /// Who you are: your user id (any legal id will do, there is no registry)
    #[arg(long)]
    pub(super) user: UserId,
    /// Which of your devices this is; each device has its own place in your events, and a second
    /// socket of the same device ends the first one [default: terminal, or the token's]
    #[arg(long)]
    device: Option<DeviceId>,
    /// The server's address
    #[arg(long, env = "CHASKI_URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: String,
    /// A token of this user and device; without it one is signed with the development key
    /// (CHASKI_DEV_KEY, or dev-key.pem in the data directory)
    #[arg(long, env = "CHASKI_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Args)]
pub(super) struct Wire {
    /// Speak protobuf instead of JSON on the WebSocket
    #[arg(long)]
    protobuf: bool,
}

/// Which chat a command is about.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// The other person of a 1:1 chat, which begins with the first message
    #[arg(long, value_name = "USER")]
    pub(super) to: Option<UserId>,
    /// The chat's id (`d.…` or `g.…`)
    #[arg(long, value_name = "CHAT")]
    pub(super) chat: Option<ChatId>,
}

/// An identity with all that was left out.
pub(super) struct Speaker {
    pub(super) url: String,
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) tokens: TokenProvider,
}

impl Identity {
    pub(super) fn resolve(&self, config: &Config) -> anyhow::Result<Speaker> {
        ensure!(
            self.url.starts_with("http://"),
            "--url {} does not begin with http://; the server prints its address as `ready http://…`",
            self.url
        );
        let mut device = self.device.clone();
        let tokens = match &self.token {
            Some(token) => {
                let of = claims(token).context("--token (CHASKI_TOKEN) is not a token")?;
                ensure!(
                    of.sub == self.user.as_str(),
                    "--token (CHASKI_TOKEN) is for the user {}, not for {}",
                    of.sub,
                    self.user
                );
                device = Some(device.map_or_else(|| of.device.parse(), Ok)?);
                TokenProvider::fixed(token)
            }
            None => signing(config, &self.user, &terminal(&device)?)?,
        };
        let device = terminal(&device)?;
        Ok(Speaker { url: self.url.clone(), user: self.user.clone(), device, tokens })
    }
}

fn terminal(device: &Option<DeviceId>) -> anyhow::Result<DeviceId> {
    Ok(device.clone().map_or_else(|| "terminal".parse(), Ok)?)
}

/// Tokens signed with the development key.
pub(super) fn signing(
    config: &Config,
    user: &UserId,
    device: &DeviceId,
) -> anyhow::Result<TokenProvider> {
    let file = config.dev_key();
    ensure!(
        file.exists(),
        "there is no development key at {}: take over the line `export CHASKI_DEV_KEY=…` that \
         `chaski up --dev` and `chaski cluster up` print, or give --token",
        file.display()
    );
    let key = DevKey::load_or_create(&file)?;
    let (user, device) = (user.clone(), device.clone());
    Ok(TokenProvider::local(move || {
        let bearer = key.sign(&user, &device, TTL, SystemClock.now_ms());
        Ok(Token { bearer, renew_in: Some(TTL * 4 / 5) })
    }))
}

#[derive(serde::Deserialize)]
struct Claims {
    sub: String,
    device: String,
}

/// Whom a token is for; the server, not this command, checks it.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

impl Speaker {
    /// A client that is not connected yet.
    pub(super) fn client(
        &self,
        wire: &Wire,
        resume_after: Option<u64>,
    ) -> anyhow::Result<chaski_client::Client> {
        let mut config = chaski_client::Config::new(
            &self.url,
            self.user.as_str(),
            self.device.as_str(),
            self.tokens.clone(),
        );
        config.format = if wire.protobuf { Format::Protobuf } else { Format::Json };
        config.resume_after = resume_after;
        Ok(chaski_client::Client::new(config)?)
    }

    /// Says what to do where nothing listens at the address: a client would try for ever.
    pub(super) async fn reach(&self) -> anyhow::Result<()> {
        let address = address(&self.url);
        let why = match timeout(REACH_MAX, TcpStream::connect(&address)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".into(),
        };
        bail!(
            "no server at {} ({why}): start one with `./dev up`, or say where it is with --url or \
             CHASKI_URL",
            self.url
        )
    }

    /// An end of the client, with what to do.
    pub(super) fn explain(&self, error: Error) -> anyhow::Error {
        let advice = match &error {
            Error::NotAuthenticated(_) => self.key_advice(),
            Error::Replaced => format!(
                "another chat or listen runs as {}/{}: give --device another name",
                self.user, self.device
            ),
            Error::TooManyDevices => format!(
                "{} is one device too many of {}: /devices and /revoke of `chaski chat` with \
                 --device of a known one make room",
                self.device, self.user
            ),
            Error::Revoked => {
                format!("{}/{} was revoked: its tokens are taken no more", self.user, self.device)
            }
            _ => return error.into(),
        };
        anyhow::Error::new(error).context(advice)
    }

    /// A refusal over HTTP, with what to do.
    pub(super) fn explain_http(&self, error: HttpError) -> anyhow::Error {
        let advice = match &error {
            HttpError::Problem { status: 401, .. } => self.key_advice(),
            HttpError::Problem { code, .. } if code == "not_a_member" => {
                format!("{} is not a member of this chat", self.user)
            }
            HttpError::Problem { status: 404, .. } => {
                "there is no such chat (a 1:1 chat is named by --to)".into()
            }
            _ => return error.into(),
        };
        anyhow::Error::new(error).context(advice)
    }

    fn key_advice(&self) -> String {
        format!(
            "the server at {} does not take this token: CHASKI_DEV_KEY must name the key that this \
             very server printed at its start, and CHASKI_TOKEN must not have ended",
            self.url
        )
    }
}

fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { authority.into() } else { format!("{authority}:80") }
}

/// What has changed with the connection, for standard error.
pub(super) fn connection_news(event: &Event) -> Option<String> {
    match event {
        Event::Connected { .. } => Some("connected".into()),
        Event::Disconnected { cause: chaski_client::Disconnect::Moved(url), .. } => {
            Some(format!("sent on to {url}"))
        }
        Event::Disconnected { cause, retry_in } => Some(format!(
            "not connected ({cause}); trying again in {:.1} s",
            retry_in.as_secs_f32()
        )),
        _ => None,
    }
}

/// A message of text.
pub(super) fn message(target: &Target, key: String, text: String) -> v1::SendMessage {
    use v1::send_message;
    let place = match (&target.chat, &target.to) {
        (Some(chat), _) => Some(send_message::Target::ChatId(chat.to_string())),
        (None, Some(to)) => Some(send_message::Target::To(to.to_string())),
        (None, None) => None,
    };
    v1::SendMessage {
        target: place,
        client_message_id: key,
        body: Some(send_message::Body::Text(text)),
        attachments: Vec::new(),
        sent_at: Some(chaski_proto::Timestamp::from_ms(SystemClock.now_ms())),
    }
}

/// The lines of standard input; the channel's end is the input's. Read by a thread of its own: a
/// read from a terminal cannot be cancelled, and would keep a runtime from ending.
pub(super) fn stdin_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (tell, lines) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_url() {
        assert_eq!(address("http://h:81/x"), "h:81");
        assert_eq!(address("http://h"), "h:80");
        assert_eq!(address("http://[::1]:8080"), "[::1]:8080");
        assert_eq!(address("http://[::1]"), "[::1]:80");
    }

    #[test]
    fn a_token_tells_whom_it_is_for() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"ana","device":"phone","exp":1}"#);
        let of = claims(&format!("x.{payload}.y")).unwrap();
        assert_eq!((of.sub.as_str(), of.device.as_str()), ("ana", "phone"));
        assert!(claims("nonsense").is_none() && claims("a.b.c").is_none());
    }
}

//! The proof that a cluster takes traffic: a message from a user to themself, sent over HTTP and
//! seen on a WebSocket.

use crate::{
    cli::{identity::signing, send::deliver},
    config::Config,
};
use anyhow::Context as _;
use chaski_client::{Body, Client, Event, Http, v1};
use chaski_core::{DeviceId, UserId};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

const PROBE_MAX: Duration = Duration::from_secs(30);

pub(super) async fn send_and_hello(config: &Config, url: &str) -> anyhow::Result<()> {
    let (user, device): (UserId, DeviceId) = ("chaski-probe".parse()?, "probe".parse()?);
    let tokens = signing(config, &user, &device)?;
    let (client_message_id, to) = (Uuid::now_v7().to_string(), user.to_string());
    let message = v1::SendMessage {
        target: Some(v1::send_message::Target::To(to)),
        client_message_id: client_message_id.clone(),
        body: Some(v1::send_message::Body::Text("are you there?".into())),
        ..Default::default()
    };
    let client = chaski_client::Config::new(url, user.as_str(), device.as_str(), tokens.clone());
    let mut client = Client::new(client)?;
    let http = Http::new(url)?;
    let proof = async {
        deliver(&http, &tokens, &message).await.context("send")?;
        loop {
            if let Event::Durable { body: Some(Body::NewMessage(seen)), .. } = client.next().await?
                && seen.client_message_id == client_message_id
            {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PROBE_MAX, proof).await.with_context(|| format!("nothing within {PROBE_MAX:?}"))??;
    client.close().await;
    Ok(())
}

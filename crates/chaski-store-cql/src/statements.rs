//! Every statement, prepared once. All are idempotent (and so may be retried by the driver)
//! except the lightweight transactions.

use crate::error;
use chaski_ports::{ErrorKind, PortError};
use scylla::{
    client::session::Session,
    statement::{Consistency, Statement, prepared::PreparedStatement},
};

macro_rules! statements {
    ($($name:ident ($kind:ident, $page:literal): $text:literal,)*) => {
        /// The prepared statements.
        pub(crate) struct Statements {
            $(pub(crate) $name: PreparedStatement,)*
        }

        impl Statements {
            pub(crate) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, PortError> {
                Ok(Self {
                    $($name: prepare(session, Kind::$kind, $page, $text.replace("{ks}", keyspace)).await?,)*
                })
            }
        }
    };
}

/// How a statement may be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A read or a plain write.
    Plain,
    /// A read that sees, and completes, lightweight transactions.
    Serial,
    /// A lightweight transaction.
    Lwt,
}

// The page sizes bound what one response may hold: about 10 MB at the largest rows.
statements! {
    // Messages
    put_message(Plain, 1): "INSERT INTO {ks}.messages (chat, bucket, seq, item) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    put_place(Plain, 1): "INSERT INTO {ks}.messages (chat, bucket, seq) VALUES (?, ?, ?) USING TIMESTAMP ?",
    put_item(Plain, 1): "UPDATE {ks}.messages USING TIMESTAMP ? AND TTL ? SET item = ? WHERE chat = ? AND bucket = ? AND seq = ?",
    messages_up(Plain, 50): "SELECT seq, item FROM {ks}.messages WHERE chat = ? AND bucket = ? AND seq > ? LIMIT ?",
    messages_down(Plain, 50): "SELECT seq, item FROM {ks}.messages WHERE chat = ? AND bucket = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
    messages_at(Plain, 50): "SELECT seq, item FROM {ks}.messages WHERE chat = ? AND bucket = ? AND seq IN ?",
    put_chat_bucket(Plain, 1): "INSERT INTO {ks}.chat_buckets (chat, bucket) VALUES (?, ?) USING TIMESTAMP 1",
    chat_buckets_up(Plain, 1000): "SELECT bucket FROM {ks}.chat_buckets WHERE chat = ? AND bucket > ? ORDER BY bucket ASC LIMIT ?",
    chat_buckets_down(Plain, 1000): "SELECT bucket FROM {ks}.chat_buckets WHERE chat = ? AND bucket <= ? LIMIT ?",
    // Inboxes
    put_inbox(Plain, 1): "INSERT INTO {ks}.inbox (partition, shard, bucket, user, position, event) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?",
    inbox(Plain, 1000): "SELECT position, event FROM {ks}.inbox WHERE partition = ? AND shard = ? AND bucket = ? AND user = ? AND position > ? AND position <= ? LIMIT ?",
    put_inbox_bucket(Plain, 1): "INSERT INTO {ks}.inbox_buckets (partition, bucket) VALUES (?, ?) USING TTL ?",
    inbox_buckets(Plain, 1000): "SELECT bucket FROM {ks}.inbox_buckets WHERE partition = ? AND bucket >= ? AND bucket <= ? LIMIT ?",
    // Chats and verdicts
    put_chat(Plain, 1): "INSERT INTO {ks}.chats (chat, version, state) VALUES (?, ?, ?) USING TIMESTAMP ?",
    chat(Plain, 1): "SELECT version, state FROM {ks}.chats WHERE chat = ?",
    put_membership(Plain, 1): "INSERT INTO {ks}.chats_by_user (user, chat, version, state) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    membership(Plain, 1): "SELECT version, state FROM {ks}.chats_by_user WHERE user = ? AND chat = ?",
    memberships(Plain, 500): "SELECT chat, version, state FROM {ks}.chats_by_user WHERE user = ? AND chat > ? LIMIT ?",
    put_verdict(Plain, 1): "INSERT INTO {ks}.verdicts (request, verdict) VALUES (?, ?) USING TIMESTAMP ? AND TTL 900",
    verdict(Plain, 1): "SELECT verdict FROM {ks}.verdicts WHERE request = ?",
    put_mark(Plain, 1): "INSERT INTO {ks}.marks (chat, user, version, state) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    mark(Plain, 1): "SELECT version, state FROM {ks}.marks WHERE chat = ? AND user = ?",
    marks(Plain, 500): "SELECT user, version, state FROM {ks}.marks WHERE chat = ? LIMIT ?",
    // Contacts, blocks, settings
    put_connection(Plain, 1): "INSERT INTO {ks}.connections (user, peer, version, state) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    connection(Plain, 1): "SELECT version, state FROM {ks}.connections WHERE user = ? AND peer = ?",
    connections(Plain, 500): "SELECT peer, version, state FROM {ks}.connections WHERE user = ? AND peer > ? LIMIT ?",
    put_settings(Plain, 1): "INSERT INTO {ks}.settings (user, version, state) VALUES (?, ?, ?) USING TIMESTAMP ?",
    settings(Plain, 1): "SELECT state FROM {ks}.settings WHERE user = ?",
    put_block(Plain, 1): "INSERT INTO {ks}.blocks (partition, user, peer, at_offset, blocked, asked_at) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    blocks(Plain, 1000): "SELECT user, peer, at_offset, blocked, asked_at FROM {ks}.blocks WHERE partition = ? AND (user, peer, at_offset) > (?, ?, ?) LIMIT ?",
    pair_blocks(Plain, 1000): "SELECT at_offset, blocked, asked_at FROM {ks}.blocks WHERE partition = ? AND user = ? AND peer = ? AND at_offset >= ? LIMIT ?",
    put_hidden(Plain, 1): "INSERT INTO {ks}.hidden (user, chat, seq) VALUES (?, ?, ?) USING TIMESTAMP 1",
    hidden(Plain, 1000): "SELECT seq FROM {ks}.hidden WHERE user = ? AND chat = ? AND seq >= ? AND seq <= ?",
    put_inbox_day(Plain, 1): "INSERT INTO {ks}.inbox_days (partition, day, first_position) VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?",
    inbox_days(Plain, 1000): "SELECT day, first_position FROM {ks}.inbox_days WHERE partition = ? AND day >= ?",
    // Devices
    put_cursor(Plain, 1): "UPDATE {ks}.devices USING TIMESTAMP ? SET cursor = ? WHERE user = ? AND device = ?",
    put_active(Plain, 1): "UPDATE {ks}.device_notes USING TIMESTAMP ? SET last_active = ? WHERE user = ? AND device = ?",
    put_name(Plain, 1): "UPDATE {ks}.device_notes USING TIMESTAMP ? SET name = ? WHERE user = ? AND device = ?",
    put_revoked(Plain, 1): "UPDATE {ks}.device_notes USING TIMESTAMP ? SET revoked = ? WHERE user = ? AND device = ?",
    device_note(Plain, 1): "SELECT device, last_active, name, revoked FROM {ks}.device_notes WHERE user = ? AND device = ?",
    device_notes(Plain, 1000): "SELECT device, last_active, name, revoked FROM {ks}.device_notes WHERE user = ? LIMIT ?",
    device(Plain, 1): "SELECT device, cursor, last_active FROM {ks}.devices WHERE user = ? AND device = ?",
    devices(Plain, 1000): "SELECT device, cursor, last_active FROM {ks}.devices WHERE user = ? LIMIT ?",
    // Checkpoints
    put_watermark(Plain, 1): "INSERT INTO {ks}.watermarks (role, partition, epoch, next_offset, vector) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?",
    watermarks(Plain, 100): "SELECT epoch, next_offset, vector FROM {ks}.watermarks WHERE role = ? AND partition = ? LIMIT ?",
    watermark_keys(Plain, 200): "SELECT epoch, next_offset FROM {ks}.watermarks WHERE role = ? AND partition = ? LIMIT ?",
    drop_watermark_epochs(Plain, 1): "DELETE FROM {ks}.watermarks USING TIMESTAMP ? WHERE role = ? AND partition = ? AND epoch < ?",
    drop_watermarks(Plain, 1): "DELETE FROM {ks}.watermarks USING TIMESTAMP ? WHERE role = ? AND partition = ? AND epoch = ? AND next_offset < ?",
    put_chunk(Plain, 1): "INSERT INTO {ks}.snapshots (partition, bucket, epoch, as_of, chunk, chunks, total, checksum, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    chunks(Plain, 8): "SELECT epoch, as_of, chunk, chunks, total, checksum, data FROM {ks}.snapshots WHERE partition = ? AND bucket = ?",
    drop_snapshot_epochs(Plain, 1): "DELETE FROM {ks}.snapshots USING TIMESTAMP ? WHERE partition = ? AND bucket = ? AND epoch < ?",
    drop_snapshots(Plain, 1): "DELETE FROM {ks}.snapshots USING TIMESTAMP ? WHERE partition = ? AND bucket = ? AND epoch = ? AND as_of < ?",
    claimed(Serial, 1): "SELECT epoch, assignment FROM {ks}.ownership WHERE role = ? AND partition = ?",
    claimed_before(Serial, 1): "SELECT epoch FROM {ks}.claims WHERE role = ? AND partition = ?",
    first_claim(Lwt, 1): "INSERT INTO {ks}.ownership (role, partition, epoch, assignment) VALUES (?, ?, ?, ?) IF NOT EXISTS",
    next_claim(Lwt, 1): "UPDATE {ks}.ownership SET epoch = ?, assignment = ? WHERE role = ? AND partition = ? IF epoch = ?",
}

async fn prepare(
    session: &Session,
    kind: Kind,
    page: i32,
    text: String,
) -> Result<PreparedStatement, PortError> {
    let context = format!("cql prepare {text}");
    let mut statement = Statement::new(text).with_page_size(page);
    statement.set_is_idempotent(kind != Kind::Lwt);
    if kind == Kind::Serial {
        statement.set_consistency(Consistency::Serial);
    }
    session.prepare(statement).await.map_err(|e| {
        PortError::new(ErrorKind::Unavailable, context).caused_by(error::Vendor::from(e))
    })
}

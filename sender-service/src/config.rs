//! Limits of what may be sent. Each is tested at the limit and one past it.

use serde::{Deserialize, Serialize};

/// Settings of the sender service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SenderConfig {
    /// Longest text, in Unicode scalar values.
    pub text_chars_max: usize,
    /// Longest ciphertext, in bytes.
    pub ciphertext_bytes_max: usize,
    /// Most attachments of one message.
    pub attachments_max: usize,
    /// Most participants of a chat, the caller included.
    pub participants_max: usize,
    /// Longest name of a chat, in Unicode scalar values.
    pub chat_name_chars_max: usize,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            text_chars_max: 100_000,
            ciphertext_bytes_max: 400_000,
            attachments_max: 10,
            participants_max: 100,
            chat_name_chars_max: 200,
        }
    }
}

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
    /// Longest reason for which a recipient refuses a message, in Unicode scalar values.
    pub reason_chars_max: usize,
    /// Most marks in one call of a delivery host; a chat without marks counts as one.
    pub marks_max: usize,
    /// Whether somebody who was blocked is told so. `hidden`: their messages are accepted and
    /// withheld further on. `visible`: they are refused here (403 `blocked`).
    pub blocks: BlocksShown,
    /// Pairs of which it is remembered that one blocks, or once blocked, the other (about 250
    /// bytes each). Of further ones nothing is refused here; their messages are withheld all the
    /// same.
    pub blocked_pairs_max: usize,
}

/// Whether somebody who was blocked is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlocksShown {
    /// No answer differs.
    #[default]
    Hidden,
    /// Their messages are refused.
    Visible,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            text_chars_max: 100_000,
            ciphertext_bytes_max: 400_000,
            attachments_max: 10,
            participants_max: 100,
            chat_name_chars_max: 200,
            reason_chars_max: 64,
            marks_max: 10_000,
            blocks: BlocksShown::Hidden,
            blocked_pairs_max: 1_000_000,
        }
    }
}

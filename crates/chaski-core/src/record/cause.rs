//! Why a chat refuses, in the words and numbers that clients are told.

/// Why a chat refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// 403: the sender is not a member at the message's place in the order.
    NotAMember,
    /// 404: there is no such chat.
    NoSuchChat,
    /// 409: the same id was used before for other content.
    OtherContent,
    /// 409: the chat exists with other participants or another name.
    OtherChat,
    /// 403: only admins may.
    NotAllowed,
    /// 409: the chat has as many participants as it may have.
    ChatFull,
    /// 404: the one to appoint is not a member.
    NoSuchMember,
    /// 409: a chat needs an admin.
    LastAdmin,
    /// 403: the membership of a 1:1 chat is fixed.
    DirectChat,
    /// 422: a recipient's client shows a later message of that device already.
    ByRecipient,
}

impl Cause {
    /// (HTTP status, code, words for a person).
    #[must_use]
    pub fn describe(self) -> (u32, &'static str, &'static str) {
        match self {
            Cause::NotAMember => (403, "not_a_member", "the sender is not a member of this chat"),
            Cause::NoSuchChat => (404, "no_such_chat", "there is no such chat"),
            Cause::OtherContent => {
                (409, "id_reused", "this clientMessageId was used before for other content")
            }
            Cause::OtherChat => (
                409,
                "id_reused",
                "this clientChatId was used before for other participants or another name",
            ),
            Cause::NotAllowed => (403, "not_allowed", "only admins of this chat may do that"),
            Cause::ChatFull => {
                (409, "chat_full", "the chat has as many participants as it may have")
            }
            Cause::NoSuchMember => (404, "no_such_member", "this user is not in the chat"),
            Cause::LastAdmin => (409, "last_admin", "a chat needs an admin: appoint another first"),
            Cause::DirectChat => (403, "direct_chat", "the membership of a 1:1 chat is fixed"),
            Cause::ByRecipient => {
                (422, "rejected_by_recipient", "the recipient shows a later message already")
            }
        }
    }
}

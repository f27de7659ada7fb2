//! The planted bugs: their names, where each one sits, and what it does wrong.

/// Where a bug sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Takes messages into the log.
    Sender,
    /// The fan-out.
    Generator,
    /// The delivery host, as far as it follows the log.
    Delivery,
    /// The delivery host, as far as it speaks with clients.
    Socket,
    /// The durable log.
    Messages,
    /// Contacts and blocks.
    Connections,
}

impl Tier {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Generator => "generator",
            Self::Delivery => "delivery",
            Self::Socket => "socket",
            Self::Messages => "messages",
            Self::Connections => "connections",
        }
    }
}

macro_rules! bugs {
    ($($bug:ident $name:literal $tier:ident $what:literal)*) => {
        /// A bug that is planted on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name for people and for `CHASKI_PLANTED`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }

            /// Where it sits.
            #[must_use]
            pub const fn tier(self) -> Tier {
                match self { $(Self::$bug => Tier::$tier,)* }
            }

            /// What it does wrong.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$bug => $what,)* }
            }
        }
    };
}

bugs! {
    AcksOne "acks-one" Sender "A record counts as durable once the leader has it."
    AcceptedTooEarly "accepted-too-early" Sender "A send is answered before the log has it."
    AcceptedWhileItLingers "accepted-while-it-lingers" Sender
        "A send is answered before the log has it, and waits half a second for company."
    WrongPartitioner "wrong-partitioner" Sender "A chat's records are placed by who sends them."
    BodiesAreCleaned "bodies-are-cleaned" Sender "What is not ASCII is taken out of texts."
    UnknownIsRefused "unknown-is-refused" Sender "What may be in the log is told to be refused."
    CursorBeforeOutputs "cursor-before-outputs" Generator
        "The state is saved before its outputs are acknowledged."
    CursorWithoutEpoch "cursor-without-epoch" Generator
        "The cursor is saved without its owner's epoch: the farther one wins, whoever it is from."
    DropsWhenFull "drops-when-full" Generator
        "Where outputs of several inputs wait, those of the next one are dropped."
    HalfACheckpoint "half-a-checkpoint" Generator
        "Every other bucket is left out of the saved state; the cursor moves all the same."
    RejectionToldTwice "rejection-told-twice" Generator "A rejection makes two records."
    WindowLost "window-lost" Generator "A new owner does not know the idempotency keys."
    HostWithoutFilter "host-without-filter" Delivery "The host shows repeats."
    HostShowsTheBlocked "host-shows-the-blocked" Delivery "The host knows of no blocks."
    BehindIsExpired "behind-is-expired" Delivery
        "Who is behind the ring is told that it has expired, instead of being given pages."
    DropsForTheSlow "drops-for-the-slow" Socket
        "A device that is behind by more than a burst is taken to the end."
    NeverAnswered "never-answered" Socket "Some messages are never answered, however often sent."
    PageWithoutItsLast "page-without-its-last" Socket "A page is shown without its last event."
    ResumesAtTheEnd "resumes-at-the-end" Socket "A device resumes at the end, wherever it says it is."
    FailedWritesPass "failed-writes-pass" Messages "The watermark moves past rows that failed."
    FilterWithoutPlace "filter-without-place" Messages
        "The cursor is loaded without what was seen of each source up to there."
    SpansAreIgnored "spans-are-ignored" Messages "Who was a member once sees the whole history."
    StoreWithoutFilter "store-without-filter" Messages "Repeats are stored."
    StoredInTheClear "stored-in-the-clear" Messages "What a block withholds is stored as shown."
    BlockedTooEarly "blocked-too-early" Connections
        "BLOCKED is answered before the block is in the order of the blocker."
}

impl Bug {
    /// The bug of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

//! What can happen, and how much of it.

use std::fmt;

/// Alice publishes and answers; Bob learns and calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    Alice = 0,
    Bob = 1,
}

impl Who {
    pub const BOTH: [Who; 2] = [Who::Alice, Who::Bob];

    pub fn other(self) -> Who {
        match self {
            Who::Alice => Who::Bob,
            Who::Bob => Who::Alice,
        }
    }
}

/// What was on its way when a connection broke, and never arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lost {
    All,
    Nothing,
    /// What was on its way to him or her.
    To(Who),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Publish(u8),
    Withdraw(u8),
    Call(u8),
    /// The writer of this link writes what waits.
    Flush(u8, Who),
    /// The next piece from there arrives, or the end of the connection.
    Arrive(u8, Who),
    /// The timer of acknowledgements.
    Acknowledge(Who),
    Dial,
    /// The connection breaks. Each end hears of it behind what arrives.
    Break(u8, Lost),
    /// Only this end hears of it, and dials again while the other believes in the connection: its network has changed, say.
    Leave(u8, Who),
    /// The session has waited for a link for long enough.
    Grace(Who),
    /// The system is killed and starts again, with nothing but its keys, its engines and its counter of serials.
    Restart(Who),
}

impl Action {
    /// Nobody's choice: it happens sooner or later.
    pub fn is_progress(self) -> bool {
        matches!(self, Action::Flush(..) | Action::Arrive(..) | Action::Acknowledge(_) | Action::Dial)
    }
}

/// How often what is somebody's choice happens, at most. All of it ends, so the states are finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    pub dials: Who,
    pub engines: u8,
    pub publications: u8,
    pub withdrawals: u8,
    pub calls: u8,
    /// Ends of connections, of whatever kind.
    pub breaks: u8,
    /// Every way in which a connection can break, or only that in which all is lost and that in which nothing is.
    pub all_breaks: bool,
    pub graces: u8,
    /// Of either.
    pub restarts: u8,
}

impl Bounds {
    /// Nothing happens.
    pub const NONE: Bounds = Bounds {
        dials: Who::Bob,
        engines: 1,
        publications: 0,
        withdrawals: 0,
        calls: 0,
        breaks: 0,
        all_breaks: false,
        graces: 0,
        restarts: 0,
    };
}

impl fmt::Display for Bounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} dials, {} engines, {} publications, {} withdrawals, {} calls, {} breaks{}, {} graces that end, {} restarts",
            self.dials,
            self.engines,
            self.publications,
            self.withdrawals,
            self.calls,
            self.breaks,
            if self.all_breaks { " of every kind" } else { "" },
            self.graces,
            self.restarts
        )
    }
}

/// A fault that is put in, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Planted {
    /// Whoever withdraws an engine while there is no link tells nobody.
    ForgetIsLost,
    /// What is announced while there is no link waits for one, and LEARNs go ahead of FORGETs.
    ForgetIsOvertaken,
    /// A FORGET has the serial of the LEARN that it ends.
    ForgetIsNotNewer,
    /// A new session isn't told of engines that were there before.
    NewSessionIsNotTold,
    /// What was learned stays when its session ends.
    DirectoryOutlivesSession,
    /// Calls stay open when their session ends.
    CallsOutliveSession,
    /// Callers of an engine that was forgotten go on waiting.
    CallsOutliveEngine,
    /// Serials begin anew with a restart.
    SerialsBeginAgain,
    /// Whoever takes a session over to another link loses the first piece that comes on it.
    ReaderLosesAPiece,
}

impl Planted {
    pub const ALL: [Planted; 9] = [
        Planted::ForgetIsLost,
        Planted::ForgetIsOvertaken,
        Planted::ForgetIsNotNewer,
        Planted::NewSessionIsNotTold,
        Planted::DirectoryOutlivesSession,
        Planted::CallsOutliveSession,
        Planted::CallsOutliveEngine,
        Planted::SerialsBeginAgain,
        Planted::ReaderLosesAPiece,
    ];
}

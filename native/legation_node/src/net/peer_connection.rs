//! One connection with another realm, from the first byte to the last.
//!
//! ```text
//!  carrier ──► reader ──► Link ──► SessionEvents            Link ──► writer ──► carrier
//!                │  hello?, up, ended                             ▲
//!                ▼                                                └── wake, from whoever pushes
//!              Peers
//! ```
//!
//! Two tasks. The reader decrypts, verifies and delivers, and never sends. The writer asks for what is to be sent, sends
//! it, and asks again: one signature covers what has collected meanwhile, and nothing waits for company. One task for both
//! would deadlock against its twin at the other end when both directions are full.

mod control;
mod reader;
mod writer;

pub(crate) use control::{Control, Wanted};
pub(crate) use reader::{run, Connection, Origin};

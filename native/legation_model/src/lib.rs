//! All interleavings of a small case: two realms of the real core, an engine or two that are published and withdrawn, calls, and
//! links that break at any step.
//!
//! ```text
//!  Bounds ─► Model (stateright) ── each action of each state ──► Pair ─┬─ End ×2     a realm's driver, over the real session
//!                │                                                     └─ Wire ×n    what is on its way, in pieces
//!                └─ properties over Facts
//! ```
//!
//! The cores can't be copied, so a state is the actions that led to it, done again from the start on new cores. Two ways come to the same
//! state where each end has been given the same, in the same order: the core reads no clock and draws nothing, so it can't tell them apart.
//! Nothing is abstracted away. The carrier is `local`: what is on its way is plain frames.
#![forbid(unsafe_code)]

pub mod action;
pub mod end;
pub mod model;
pub mod pair;

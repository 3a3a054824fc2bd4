//! How what goes to a peer is signed, and what is taken from it: at the top for all peers, and in a peer's own table.

use legation_proto::signing::{Mode, Modes};

use super::document::{Section, Value};

const MODE_WORDS: &str = "\"engine\", \"delegated\" or \"checkpoint\"";
const MODES_WORDS: &str = "a list of \"engine\", which is always in it, \"delegated\" and \"checkpoint\"";

/// `engine` is to be said, so that a list says what it means.
pub fn accepted(modes: &[Mode]) -> Option<Modes> {
    modes.contains(&Mode::Engine).then(|| Modes::of(modes.iter().copied()))
}

pub fn signing(section: &Section<'_>) -> Option<Mode> {
    section.value("signing").and_then(|value| value.parse(MODE_WORDS, Mode::from_name))
}

pub fn accept_signing(section: &Section<'_>) -> Option<Modes> {
    let value = section.value("accept_signing")?;
    let items = value.items(MODES_WORDS)?;
    let modes: Option<Vec<Mode>> =
        items.iter().map(|item: &Value<'_>| item.parse(MODES_WORDS, Mode::from_name)).collect();
    let modes = accepted(&modes?);
    if modes.is_none() {
        value.expected(MODES_WORDS);
    }
    modes
}

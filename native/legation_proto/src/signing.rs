//! Signing modes: what proves who sent the messages of a batch (`protocol.md` 9.8). Each side chooses its own; what it takes from
//! the other is its own choice, too.

/// How the messages of a batch are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// One source engine, whose key signs.
    #[default]
    Engine = 1,
    /// A source for each message, and one signature by the realm's online key.
    Delegated = 2,
    /// As before, without a signature: that comes later, over many batches.
    Checkpoint = 3,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Engine, Mode::Delegated, Mode::Checkpoint];

    pub fn from_wire(number: u8) -> Option<Mode> {
        Self::ALL.into_iter().find(|mode| *mode as u8 == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Mode::Engine => "engine",
            Mode::Delegated => "delegated",
            Mode::Checkpoint => "checkpoint",
        }
    }

    pub fn from_name(name: &str) -> Option<Mode> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Its bit among the features of a hello; `engine` is always taken and has none.
    fn feature(self) -> u64 {
        match self {
            Mode::Engine => 0,
            Mode::Delegated => 1,
            Mode::Checkpoint => 2,
        }
    }
}

/// Modes that a side takes from the other; [`Mode::Engine`] is always among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes(u64);

impl Default for Modes {
    fn default() -> Modes {
        Modes::of([Mode::Delegated])
    }
}

impl Modes {
    /// These, and `engine`.
    pub fn of(modes: impl IntoIterator<Item = Mode>) -> Modes {
        Modes(modes.into_iter().fold(0, |bits, mode| bits | mode.feature()))
    }

    pub fn contains(self, mode: Mode) -> bool {
        self.0 & mode.feature() == mode.feature()
    }

    /// As a hello tells it.
    pub fn features(self) -> u64 {
        self.0
    }

    /// Bits that mean something else, or nothing yet, are ignored.
    pub fn from_features(features: u64) -> Modes {
        Modes(features & Modes::of(Mode::ALL).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_known_by_its_number_and_its_name() {
        for mode in Mode::ALL {
            assert_eq!(Mode::from_wire(mode as u8), Some(mode));
            assert_eq!(Mode::from_name(mode.name()), Some(mode));
        }
        assert_eq!((Mode::from_wire(0), Mode::from_wire(4)), (None, None));
    }

    #[test]
    fn engine_is_always_taken_and_unknown_features_are_none() {
        assert!(Modes::of([]).contains(Mode::Engine));
        assert!(!Modes::of([Mode::Delegated]).contains(Mode::Checkpoint));
        assert_eq!(Modes::from_features(u64::MAX), Modes::of(Mode::ALL));
        assert_eq!(Modes::from_features(!3), Modes::of([]));
        assert_eq!(Modes::default().features(), 1);
    }
}

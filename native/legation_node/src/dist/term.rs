//! External terms as far as distribution needs them.

/// A pid as it stands in a frame. `raw` is its whole encoding, tag included, without a version byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid<'a> {
    pub raw: &'a [u8],
    /// The node's name, as text (UTF-8).
    pub node: &'a [u8],
    pub id: u32,
    pub serial: u32,
    pub creation: u32,
}

/// A reference, likewise. Up to five words; unused ones are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    pub raw: &'a [u8],
    pub node: &'a [u8],
    pub creation: u32,
    pub words: [u32; 5],
    pub count: u8,
}

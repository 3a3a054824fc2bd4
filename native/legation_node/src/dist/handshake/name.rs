//! Names of nodes, checked once.

use std::fmt;

/// The longest a node's name may be, bytes: what an atom holds.
pub const NODE_NAME_BYTES_MAX: usize = 255;

/// `name@host`: one `@`, both sides there, nothing that a terminal or a log would act upon.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName {
    text: Box<str>,
    at: usize,
}

/// Why a text is no node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a node's name has the form name@host")]
    Form,
    #[error("a node's name is at most {NODE_NAME_BYTES_MAX} bytes long")]
    TooLong,
    #[error("a node's name holds no spaces and no control characters")]
    Characters,
}

impl NodeName {
    /// # Errors
    /// [`InvalidName`] when it isn't one.
    pub fn parse(text: &str) -> Result<NodeName, InvalidName> {
        if text.len() > NODE_NAME_BYTES_MAX {
            return Err(InvalidName::TooLong);
        }
        let (name, host) = text.split_once('@').ok_or(InvalidName::Form)?;
        if name.is_empty() || host.is_empty() || host.contains('@') {
            return Err(InvalidName::Form);
        }
        if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(InvalidName::Characters);
        }
        Ok(NodeName { text: text.into(), at: name.len() })
    }

    pub(super) fn from_wire(bytes: &[u8]) -> Result<NodeName, InvalidName> {
        NodeName::parse(std::str::from_utf8(bytes).map_err(|_| InvalidName::Characters)?)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What EPMD knows the node as.
    pub fn name(&self) -> &str {
        &self.text[..self.at]
    }

    pub fn host(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// A host with its domain or an address. Nodes of long names and nodes of short ones don't connect.
    pub fn is_long(&self) -> bool {
        self.host().contains(['.', ':'])
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_falls_into_its_parts() {
        let name = NodeName::parse("legation@10.0.0.7").expect("a good name");
        assert_eq!(
            (name.as_str(), name.name(), name.host(), name.is_long()),
            ("legation@10.0.0.7", "legation", "10.0.0.7", true)
        );
        assert!(!NodeName::parse("a@localhost").expect("a good name").is_long());
        assert!(NodeName::parse("a@::1").expect("a good name").is_long());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "a", "@", "a@", "@b", "a@b@c"] {
            assert_eq!(NodeName::parse(text), Err(InvalidName::Form), "{text:?}");
        }
        for text in ["a b@c", "a@c\n", "\u{1b}[2J@c", "a@\u{85}"] {
            assert_eq!(NodeName::parse(text), Err(InvalidName::Characters), "{text:?}");
        }
        assert_eq!(NodeName::from_wire(b"a@\xff"), Err(InvalidName::Characters));
    }

    #[test]
    fn a_name_is_as_long_as_an_atom_and_no_longer() {
        assert!(NodeName::parse(&format!("{}@host", "a".repeat(250))).is_ok());
        assert_eq!(NodeName::parse(&format!("{}@host", "a".repeat(251))), Err(InvalidName::TooLong));
    }
}

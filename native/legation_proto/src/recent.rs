//! What was last looked up, by name: a few hundred names come again and again, and a table of names asks for the whole of each to be hashed
//! in a way that nobody can steer. Here a name that is not found at once has to be looked up there.

const PLACES: usize = 256;

/// Nothing is allocated before the first name is kept.
#[derive(Debug)]
pub(crate) struct Recent<'a, T> {
    places: Vec<Option<(&'a str, T)>>,
}

impl<'a, T: Copy> Recent<'a, T> {
    pub fn new() -> Recent<'a, T> {
        Recent { places: Vec::new() }
    }

    pub fn get(&self, name: &str) -> Option<T> {
        match self.places.get(place(name)) {
            Some(Some((known, value))) if *known == name => Some(*value),
            _ => None,
        }
    }

    /// In the place of another, if it is taken.
    pub fn keep(&mut self, name: &'a str, value: T) {
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        self.places[place(name)] = Some((name, value));
    }
}

/// By the end of a name, where most that are numbered differ.
fn place(name: &str) -> usize {
    let end = match name.as_bytes().last_chunk::<8>() {
        Some(end) => u64::from_le_bytes(*end),
        None => name.bytes().fold(0, |end, byte| end << 8 | u64::from(byte)),
    };
    (end.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as usize
}

const _: () = assert!(PLACES == 1 << 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_the_names_own_and_most_are_found() {
        let names: Vec<String> = (0..100).map(|number| format!("engine {number}")).collect();
        let mut recent = Recent::new();
        assert_eq!(recent.get("engine 1"), None);
        names.iter().enumerate().for_each(|(number, name)| recent.keep(name, number));
        let found = names.iter().enumerate().filter(|(number, name)| match recent.get(name) {
            Some(value) => value == *number,
            None => false,
        });
        assert!(found.count() > 60);
        for name in ["", "e", "another 1", "engine 100"] {
            assert_eq!(recent.get(name), None, "{name}");
        }
        // Names that end alike are not taken for each other.
        recent.keep("a long name", 1);
        recent.keep("no long name", 2);
        assert_eq!((recent.get("a long name"), recent.get("no long name")), (None, Some(2)));
    }
}

//! Entries that are found by name, for tables that are asked for the same name again and again: the one that was
//! looked at last is found without hashing.
//!
//! **Invariants.** An entry's number stays its own until it is removed, and may then be another's.

use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Named<T> {
    by_name: HashMap<Arc<str>, u32>,
    entries: Vec<Option<(Arc<str>, T)>>,
    free: Vec<u32>,
    last: u32,
}

impl<T> Default for Named<T> {
    fn default() -> Named<T> {
        Named { by_name: HashMap::new(), entries: Vec::new(), free: Vec::new(), last: 0 }
    }
}

impl<T> Named<T> {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn find(&mut self, name: &str) -> Option<u32> {
        if let Some(Some((last, _))) = self.entries.get(self.last as usize) {
            if **last == *name {
                return Some(self.last);
            }
        }
        let number = *self.by_name.get(name)?;
        self.last = number;
        Some(number)
    }

    pub fn find_or_insert(&mut self, name: &str, new: impl FnOnce() -> T) -> u32 {
        if let Some(number) = self.find(name) {
            return number;
        }
        let name: Arc<str> = name.into();
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.by_name.insert(name.clone(), number);
        self.entries[number as usize] = Some((name, new()));
        self.last = number;
        number
    }

    pub fn get(&self, number: u32) -> Option<&T> {
        self.entries.get(number as usize)?.as_ref().map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.entries.get_mut(number as usize)?.as_mut().map(|(_, value)| value)
    }

    pub fn name(&self, number: u32) -> Option<&Arc<str>> {
        self.entries.get(number as usize)?.as_ref().map(|(name, _)| name)
    }

    pub fn remove(&mut self, number: u32) -> Option<T> {
        let (name, value) = self.entries.get_mut(number as usize)?.take()?;
        self.by_name.remove(&name);
        self.free.push(number);
        if self.by_name.is_empty() {
            // After a burst of many names: what they took is given back.
            *self = Named::default();
        }
        Some(value)
    }

    /// Takes all out, in no order.
    pub fn drain(&mut self) -> impl Iterator<Item = (Arc<str>, T)> {
        std::mem::take(self).entries.into_iter().flatten()
    }

    /// Number, name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<str>, &T)> {
        let numbered = self.entries.iter().enumerate();
        numbered.filter_map(|(number, entry)| entry.as_ref().map(|(name, value)| (number as u32, name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_its_name_until_it_is_removed() {
        let mut named = Named::default();
        let (one, two) = (named.find_or_insert("one", || 1), named.find_or_insert("two", || 2));
        assert_eq!((named.find("one"), named.find("two"), named.find("three")), (Some(one), Some(two), None));
        assert_eq!(named.find_or_insert("one", || 7), one);
        assert_eq!((named.get(one), named.name(two).map(|name| &**name)), (Some(&1), Some("two")));
        assert_eq!(named.remove(two), Some(2));
        assert!(named.find("two").is_none() && named.get(two).is_none() && named.remove(two).is_none());
        assert_eq!(named.find_or_insert("three", || 3), two, "its number is used again");
        assert_eq!(
            named.iter().map(|(_, name, value)| (&**name, *value)).collect::<Vec<_>>(),
            [("one", 1), ("three", 3)]
        );
    }
}

//! A TOML document as its readers want it: values by name, and whatever is wrong with them noted by line and column.
//!
//! ```text
//!  Document ─► Section (a table) ─► Value ─► text, number, items, section …
//!      ▲                              │
//!      └──────── problems ◄───────────┘
//! ```
//!
//! A value that isn't as expected is noted and read as absent, so that one pass finds all that is wrong.

use std::cell::RefCell;

use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::error::{ConfigError, Position, Problem};

/// More than this nobody reads.
const PROBLEMS_MAX: usize = 20;

/// A longer value is cut off in an error.
const SHOWN_CHARS_MAX: usize = 60;

/// A parsed text and what is wrong with it.
pub struct Document<'d> {
    origin: &'d str,
    text: &'d str,
    table: Spanned<DeTable<'d>>,
    problems: RefCell<Vec<(usize, String)>>,
}

impl<'d> Document<'d> {
    /// # Errors
    /// When the text is no TOML.
    pub fn parse(origin: &'d str, text: &'d str) -> Result<Document<'d>, ConfigError> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let document = Document { origin, text, table, problems: RefCell::default() };
        // Their `Display` would show the line, and it may hold a cookie.
        for error in &errors {
            document.problem(error.span().map_or(0, |span| span.start), error.message().to_owned());
        }
        document.check()?;
        Ok(document)
    }

    pub fn root(&self) -> Section<'_> {
        Section { document: self, table: self.table.get_ref(), at: 0, place: String::new(), known: RefCell::default() }
    }

    pub fn problem(&self, at: usize, text: String) {
        self.problems.borrow_mut().push((at, text));
    }

    pub fn position(&self, at: usize) -> Position {
        Position::of(self.text, at)
    }

    /// # Errors
    /// When something was noted.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut noted = self.problems.borrow().clone();
        if noted.is_empty() {
            return Ok(());
        }
        noted.sort_by_key(|(at, _)| *at);
        let left_out = noted.len().saturating_sub(PROBLEMS_MAX);
        noted.truncate(PROBLEMS_MAX);
        let mut problems: Vec<Problem> =
            noted.into_iter().map(|(at, text)| Problem { position: Some(self.position(at)), text }).collect();
        if left_out > 0 {
            problems.push(Problem { position: None, text: format!("and {left_out} more") });
        }
        Err(ConfigError { origin: self.origin.to_owned(), problems })
    }
}

/// A table of the document.
pub struct Section<'d> {
    document: &'d Document<'d>,
    table: &'d DeTable<'d>,
    at: usize,
    /// `[node]`; empty for the whole.
    place: String,
    /// The keys that were asked for.
    known: RefCell<Vec<&'static str>>,
}

impl<'d> Section<'d> {
    /// From now on problems are said to be there.
    pub fn rename(&mut self, place: String) {
        self.place = place;
    }

    /// The value of a key; absent, if it isn't there.
    pub fn value(&self, key: &'static str) -> Option<Value<'d>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        let value = self.table.get(key)?;
        Some(Value {
            document: self.document,
            name: key,
            at: value.span().start,
            value: value.get_ref(),
            place: self.place.clone(),
        })
    }

    /// The same, and a problem if it isn't there.
    pub fn required(&self, key: &'static str, words: &str) -> Option<Value<'d>> {
        let value = self.value(key);
        if value.is_none() {
            self.problem(format!("`{key}` is missing; expected {words}"));
        }
        value
    }

    /// A problem of the table as a whole.
    pub fn problem(&self, text: String) {
        self.document.problem(self.at, text + &within(&self.place));
    }

    /// Whatever key was not asked for is unknown.
    pub fn finish(self) {
        let known = self.known.into_inner();
        for key in self.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let place = if self.place.is_empty() { String::new() } else { format!(" in {}", self.place) };
                let text = format!("unknown key {}{place}; known are {}", shown(key.get_ref()), known.join(", "));
                self.document.problem(key.span().start, text);
            }
        }
    }
}

/// A value of the document.
pub struct Value<'d> {
    document: &'d Document<'d>,
    name: &'static str,
    at: usize,
    value: &'d DeValue<'d>,
    place: String,
}

impl<'d> Value<'d> {
    /// Where it stands, for [`Document::problem`].
    pub fn at(&self) -> usize {
        self.at
    }

    /// Notes that something else was expected here.
    pub fn expected(&self, words: &str) {
        let got = match self.value {
            DeValue::String(text) => shown(text),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.problem(format!("expected `{}` to be {words}, got: {got}", self.name));
    }

    /// The same without showing what it is instead.
    pub fn expected_secret(&self, words: &str) {
        self.problem(format!("expected `{}` to be {words}; what it is instead is not shown here", self.name));
    }

    pub fn problem(&self, text: String) {
        self.document.problem(self.at, text + &within(&self.place));
    }

    /// Without noting anything.
    pub fn as_str(&self) -> Option<&'d str> {
        self.value.as_str()
    }

    pub fn is_array(&self) -> bool {
        self.value.is_array()
    }

    pub fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub fn as_integer(&self) -> Option<u64> {
        let number = self.value.as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// A string that `parse` makes something of.
    pub fn parse<T>(&self, words: &str, parse: impl FnOnce(&'d str) -> Option<T>) -> Option<T> {
        let parsed = self.as_str().and_then(parse);
        if parsed.is_none() {
            self.expected(words);
        }
        parsed
    }

    pub fn text(&self, words: &str, valid: impl FnOnce(&str) -> bool) -> Option<String> {
        self.parse(words, |text| valid(text).then(|| text.to_owned()))
    }

    pub fn boolean(&self) -> Option<bool> {
        let boolean = self.as_bool();
        if boolean.is_none() {
            self.expected("true or false");
        }
        boolean
    }

    pub fn integer(&self, min: u64, max: u64) -> Option<u64> {
        let number = self.as_integer().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.expected(&format!("an integer from {min} to {max}"));
        }
        number
    }

    /// The elements of an array.
    pub fn items(&self, words: &str) -> Option<Vec<Value<'d>>> {
        let Some(array) = self.value.as_array() else {
            self.expected(words);
            return None;
        };
        let item = |value: &'d Spanned<DeValue<'d>>| Value {
            document: self.document,
            name: self.name,
            at: value.span().start,
            value: value.get_ref(),
            place: self.place.clone(),
        };
        Some(array.iter().map(item).collect())
    }

    /// A table.
    pub fn section(&self, words: &str, place: String) -> Option<Section<'d>> {
        let Some(table) = self.value.as_table() else {
            self.expected(words);
            return None;
        };
        Some(Section { document: self.document, table, at: self.at, place, known: RefCell::default() })
    }
}

fn within(place: &str) -> String {
    if place.is_empty() {
        return String::new();
    }
    format!(" (in {place})")
}

/// A text in quotation marks, cut off when it is long.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}

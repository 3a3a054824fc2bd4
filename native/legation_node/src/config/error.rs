//! What is wrong with a configuration, and where.

use std::fmt;

/// A place in a text; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// Where the byte at `offset` stands. Behind the end: at the end.
    pub fn of(text: &str, offset: usize) -> Position {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Position { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// None: of the file as a whole.
    pub position: Option<Position>,
    pub text: String,
}

/// A configuration that can't be used. Shows `file:line:column: what was expected`, a line per problem, and never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub origin: String,
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub fn whole(origin: &str, text: impl Into<String>) -> ConfigError {
        ConfigError { origin: origin.to_owned(), problems: vec![Problem { position: None, text: text.into() }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            match problem.position {
                Some(Position { line, column }) => {
                    write!(formatter, "{}:{line}:{column}: {}", self.origin, problem.text)?
                }
                None => write!(formatter, "{}: {}", self.origin, problem.text)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The operating system's words, without its number.
pub fn io_words(error: &std::io::Error) -> String {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    let mut characters = words.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_lines_from_one() {
        let text = "a\nöü = 1\n";
        assert_eq!(Position::of(text, 0), Position { line: 1, column: 1 });
        assert_eq!(Position::of(text, 2), Position { line: 2, column: 1 });
        assert_eq!(Position::of(text, 6), Position { line: 2, column: 3 });
        assert_eq!(Position::of(text, 99), Position { line: 3, column: 1 });
    }

    #[test]
    fn the_systems_words_come_without_its_number() {
        let error = std::fs::read("/nowhere/at/all").unwrap_err();
        assert_eq!(io_words(&error), "no such file or directory");
    }
}

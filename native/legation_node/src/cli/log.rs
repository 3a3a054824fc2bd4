//! Logs on standard error, one line per event.
//!
//! ```text
//!  text         2026-01-31T12:00:00.000000Z  INFO a link is up peer=bob profile=tls
//!  supervised   INFO a link is up peer=bob profile=tls
//!  json         {"time":"…","level":"INFO","message":"a link is up","fields":{"peer":"bob","profile":"tls"}}
//! ```
//!
//! Values that have spaces or anything that could be taken for something else are in quotation marks, with escapes:
//! what a peer calls itself can't make a line of its own.

use std::fmt::{self, Write};

use serde_json::{json, Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::EnvFilter;

use super::{Failure, LogFormat};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Text,
    /// For an owner that parses the level, and has a clock of its own.
    Supervised,
    Json,
}

impl From<LogFormat> for Style {
    fn from(format: LogFormat) -> Style {
        match format {
            LogFormat::Text => Style::Text,
            LogFormat::Json => Style::Json,
        }
    }
}

/// From now on events go to standard error; `$LEGATION_LOG` says which (`debug`, `legation_node::peers=debug,info`).
///
/// # Errors
/// When `$LEGATION_LOG` isn't understood.
pub fn start(style: Style) -> Result<(), Failure> {
    let directives = std::env::var("LEGATION_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(directives).map_err(|error| Failure::Usage(format!("$LEGATION_LOG: {error}")))?;
    // The journal has the time itself.
    let timed = style != Style::Supervised && std::env::var_os("JOURNAL_STREAM").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(Lines { style, timed })
        .finish();
    // Only a test could have set one before.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

struct Lines {
    style: Style,
    timed: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let mut time = String::new();
        if self.timed {
            SystemTime.format_time(&mut Writer::new(&mut time))?;
        }
        writeln!(writer, "{}", line(self.style, &time, event.metadata().level().as_str(), &seen))
    }
}

fn line(style: Style, time: &str, level: &str, seen: &Seen) -> String {
    if style == Style::Json {
        let fields: Map<String, Value> =
            seen.fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        let mut object = json!({"level": level, "message": seen.message, "fields": fields});
        if !time.is_empty() {
            object["time"] = time.into();
        }
        return object.to_string();
    }
    let mut line = String::new();
    if !time.is_empty() {
        line += time;
        line.push(' ');
    }
    match style {
        // Their messages stand one below the other.
        Style::Text => line += &format!("{level:>5} "),
        _ => line += &format!("{level} "),
    }
    escape_controls(&seen.message, &mut line);
    for (name, value) in &seen.fields {
        line.push(' ');
        line += name;
        line.push('=');
        match value {
            Value::String(text) if is_plain(text) => line += text,
            Value::String(text) => line += &format!("{text:?}"),
            other => line += &other.to_string(),
        }
    }
    line
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\'))
}

fn escape_controls(text: &str, out: &mut String) {
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Seen {
    fn add(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A value that fails to show itself shows what it has.
        let _ = write!(text, "{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.add(field, text.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.add(field, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let fields = vec![("peer", "bob".into()), ("reason", "two words\nand a line".into()), ("attempts", 3.into())];
        Seen { message: "a link\nis down".to_owned(), fields }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let text = r#"WARN a link\nis down peer=bob reason="two words\nand a line" attempts=3"#;
        assert_eq!(line(Style::Supervised, "", "WARN", &seen()), text);
        assert_eq!(line(Style::Text, "12:00Z", "WARN", &seen()), format!("12:00Z  {text}"));
    }

    #[test]
    fn json_has_the_fields_as_they_are() {
        let value: Value = serde_json::from_str(&line(Style::Json, "12:00Z", "WARN", &seen())).unwrap();
        let fields = json!({"peer": "bob", "reason": "two words\nand a line", "attempts": 3});
        assert_eq!(value, json!({"time": "12:00Z", "level": "WARN", "message": "a link\nis down", "fields": fields}));
    }

    #[test]
    fn values_that_could_be_taken_for_something_else_are_quoted() {
        for (text, plain) in
            [("bob", true), ("", false), ("a=b", false), ("\"", false), ("a b", false), ("größe", true)]
        {
            assert_eq!(is_plain(text), plain, "{text:?}");
        }
    }
}

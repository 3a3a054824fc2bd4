//! Answers of the control socket for people. Keys that a daemon of another version lacks show as `-`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// A column: its title, and what stands there for a row.
type Column = (&'static str, fn(&Value) -> String);

pub fn status(answer: &Value) -> String {
    pairs(answer)
}

pub fn peers(answer: &Value) -> String {
    const COLUMNS: [Column; 9] = [
        ("REALM", |peer| field(peer, "realm")),
        ("STATE", |peer| field(peer, "state")),
        ("PROFILE", |peer| field(peer, "profile")),
        ("SIGNING", |peer| field(peer, "signing")),
        ("ROLE", |peer| field(peer, "role")),
        ("ADDRESS", |peer| field(peer, "address")),
        ("SINCE", |peer| since(peer)),
        ("ATTEMPTS", |peer| field(peer, "attempts")),
        ("LAST ERROR", |peer| field(peer, "last_error")),
    ];
    rows(answer, &COLUMNS, "no peers")
}

pub fn engines(answer: &Value) -> String {
    const COLUMNS: [Column; 8] = [
        ("NAME", |engine| field(engine, "name")),
        ("STATE", |engine| field(engine, "state")),
        ("VERSION", |engine| field(engine, "version")),
        ("OPERATIONS", |engine| field(engine, "ops")),
        ("CALLS", |engine| counter(engine, "calls")),
        ("CASTS", |engine| counter(engine, "casts")),
        ("SENDS", |engine| counter(engine, "sends")),
        ("DROPPED", |engine| counter(engine, "dropped")),
    ];
    rows(answer, &COLUMNS, "no engines")
}

pub fn connections(answer: &Value) -> String {
    const COLUMNS: [Column; 9] = [
        ("REALM", |link| field(link, "realm")),
        ("STATE", |link| field(link, "state")),
        ("PROFILE", |link| field(link, "profile")),
        ("ROLE", |link| field(link, "role")),
        ("ADDRESS", |link| field(link, "address")),
        ("SINCE", |link| since(link)),
        ("RTT MS", |link| field(link, "rtt_ms")),
        ("IN", |link| counter(link, "messages_in")),
        ("OUT", |link| counter(link, "messages_out")),
    ];
    rows(answer, &COLUMNS, "no connections")
}

/// Most are 0 most of the time.
pub fn counters(answer: &Value) -> String {
    let mut table = Vec::new();
    flatten("", answer, &mut table);
    let all = table.len();
    table.retain(|row| row.get(1).is_some_and(|value| value != "0"));
    match (table.len(), all) {
        (0, _) => "all counters are 0".to_owned(),
        (shown, all) if shown < all => align(&table) + "\nall others are 0",
        _ => align(&table),
    }
}

fn rows(answer: &Value, columns: &[Column], nothing: &str) -> String {
    let Some(entries) = answer.as_array().filter(|entries| !entries.is_empty()) else { return nothing.to_owned() };
    let mut table = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect()];
    table.extend(entries.iter().map(|entry| columns.iter().map(|(_, cell)| cell(entry)).collect()));
    align(&table)
}

/// A map as `key  value`; maps in it as `key.key  value`.
fn pairs(answer: &Value) -> String {
    let mut table = Vec::new();
    flatten("", answer, &mut table);
    align(&table)
}

fn flatten(name: &str, value: &Value, table: &mut Vec<Vec<String>>) {
    match value.as_object() {
        Some(map) => {
            for (key, value) in map {
                let name = if name.is_empty() { shown(key) } else { format!("{name}.{}", shown(key)) };
                flatten(&name, value, table);
            }
        }
        None => table.push(vec![name.to_owned(), text(value)]),
    }
}

fn align(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| table.iter().filter_map(move |row| row.get(column));
    let width = |column: usize| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    table.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn field(entry: &Value, key: &str) -> String {
    entry.get(key).map_or_else(|| "-".to_owned(), text)
}

fn counter(entry: &Value, key: &str) -> String {
    entry.get("counters").map_or_else(|| "-".to_owned(), |counters| field(counters, key))
}

fn since(entry: &Value) -> String {
    let Some(since_ms) = entry.get("since_ms").and_then(Value::as_u64) else { return "-".to_owned() };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    ago(u64::try_from(now_ms).unwrap_or(u64::MAX).saturating_sub(since_ms) / 1_000)
}

fn ago(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s ago"),
        (0, 0, _) => format!("{minutes}m {}s ago", seconds % 60),
        (0, _, _) => format!("{hours}h {}m ago", minutes % 60),
        _ => format!("{days}d {}h ago", hours % 24),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => shown(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        // A listener, in a list of them.
        Value::Object(map) if ["carrier", "address", "profile"].iter().all(|key| map.contains_key(*key)) => {
            let [carrier, address, profile] = ["carrier", "address", "profile"].map(|key| field(value, key));
            format!("{carrier} {address} ({profile})")
        }
        // JSON escapes control characters itself.
        other => other.to_string(),
    }
}

/// A terminal is told nothing by what a peer calls itself.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let peers = json!([
            {"realm": "bob", "state": "up", "profile": "tls", "signing": "delegated", "role": "initiator",
             "address": "10.0.0.7:4040", "attempts": 0, "last_error": null},
            {"realm": "größe", "state": "waiting", "attempts": 12, "last_error": "connection\nrefused"},
        ]);
        assert_eq!(
            super::peers(&peers),
            "REALM  STATE    PROFILE  SIGNING    ROLE       ADDRESS        SINCE  ATTEMPTS  LAST ERROR\n\
             bob    up       tls      delegated  initiator  10.0.0.7:4040  -      0         -\n\
             größe  waiting  -        -          -          -              -      12        connection\\nrefused"
        );
    }

    #[test]
    fn lists_that_are_empty_say_so() {
        assert_eq!(engines(&json!([])), "no engines");
        assert_eq!(connections(&Value::Null), "no connections");
    }

    #[test]
    fn maps_in_maps_are_written_with_dots() {
        let answer = json!({"realm": "alice", "peers": {"listed": 20, "up": 0}});
        assert_eq!(status(&answer), "peers.listed  20\npeers.up      0\nrealm         alice");
    }

    #[test]
    fn listeners_are_a_list() {
        let listeners = json!([
            {"id": "a", "carrier": "tcp", "address": "0.0.0.0:4040", "profile": "tls"},
            {"id": "b", "carrier": "unix", "address": "/run/alice.sock", "profile": "local"},
        ]);
        let answer = json!({ "listeners": listeners });
        assert_eq!(status(&answer), "listeners  tcp 0.0.0.0:4040 (tls), unix /run/alice.sock (local)");
    }

    #[test]
    fn counters_that_are_zero_are_left_out() {
        let answer = json!({"calls_refused": 1, "sessions": {"bob": {"messages_in": 20, "verified": 0}}});
        let table = "calls_refused             1\nsessions.bob.messages_in  20\nall others are 0";
        assert_eq!(counters(&answer), table);
        assert_eq!(counters(&json!({"calls_refused": 0})), "all counters are 0");
    }

    #[test]
    fn durations_have_two_units() {
        let texts = [(5, "5s ago"), (65, "1m 5s ago"), (7_265, "2h 1m ago"), (93_600, "1d 2h ago")];
        for (seconds, text) in texts {
            assert_eq!(ago(seconds), text);
        }
    }

    #[test]
    fn operations_are_a_list() {
        assert_eq!(field(&json!({"ops": ["call", "cast"]}), "ops"), "call, cast");
    }
}

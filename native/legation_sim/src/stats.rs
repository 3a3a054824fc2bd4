//! What a run, or many, came to.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub seeds: u64,
    pub delivered: u64,
    pub calls: u64,
    pub monitors: u64,
    pub virtual_us: u64,
    pub sessions: u64,
    pub resumed: u64,
    pub links: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub operations: BTreeMap<&'static str, u64>,
}

impl Stats {
    pub fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    pub fn operation(&mut self, name: &'static str) {
        *self.operations.entry(name).or_default() += 1;
    }

    pub fn add(&mut self, other: &Stats) {
        self.seeds += other.seeds;
        self.delivered += other.delivered;
        self.calls += other.calls;
        self.monitors += other.monitors;
        self.virtual_us += other.virtual_us;
        self.sessions += other.sessions;
        self.resumed += other.resumed;
        self.links += other.links;
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in &other.operations {
            *self.operations.entry(name).or_default() += count;
        }
    }

    pub fn all_faults(&self) -> u64 {
        self.faults.values().sum()
    }
}

fn list(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Stats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.virtual_us / 1_000_000;
        writeln!(formatter, "seeds             {}", self.seeds)?;
        writeln!(formatter, "virtual time      {} h {} min {} s", seconds / 3_600, seconds / 60 % 60, seconds % 60)?;
        writeln!(formatter, "delivered         {}", self.delivered)?;
        writeln!(formatter, "calls ended       {}", self.calls)?;
        writeln!(formatter, "monitors fired    {}", self.monitors)?;
        writeln!(formatter, "links             {}", self.links)?;
        writeln!(formatter, "sessions          {}, resumed {} times", self.sessions, self.resumed)?;
        writeln!(formatter, "operations        {}", list(&self.operations))?;
        write!(formatter, "faults            {}: {}", self.all_faults(), list(&self.faults))
    }
}

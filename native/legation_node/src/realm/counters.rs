//! What a realm counts besides its sessions and its links; `docs/counters.md` says what each means.

use legation_proto::frame::batch::Refusal;
use legation_proto::session::Counter;

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub struct Counters { $(pub $name: Counter),* }

        impl Counters {
            /// Name and value of each.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),*]
            }
        }
    };
}

counters! {
    calls_refused, dropped_forbidden, dropped_filtered, dropped_undecodable, dropped_overload, dropped_noproc,
    dropped_too_large, dropped_identifiers, dropped_bad_term, dropped_ended, dropped_other, messages_in_doubt, exits_dropped, sessions_overflowed, stand_in_strays, stand_ins_idle, exits_refused, global_names_taken,
    // Of the BEAM's side.
    exits_ignored, unknown_names, stale_pids, beam_overload, beam_monitors_over_limit, beam_spawns_refused, beam_strays,
    replies_unroutable, atoms_asked, mailboxes_asked, known_atoms_over_limit, held_over_limit, gate_over_limit, control_bad_requests,
}

impl Counters {
    pub fn dropped(&self, refusal: Refusal) {
        self.dropped_reason(refusal.name());
    }

    pub fn dropped_reason(&self, reason: &str) {
        match reason {
            "forbidden" => &self.dropped_forbidden,
            "filtered" => &self.dropped_filtered,
            "undecodable" => &self.dropped_undecodable,
            "bad_term" => &self.dropped_bad_term,
            "ended" => &self.dropped_ended,
            "overload" => &self.dropped_overload,
            "noproc" => &self.dropped_noproc,
            "too_large" => &self.dropped_too_large,
            "identifiers" => &self.dropped_identifiers,
            _ => &self.dropped_other,
        }
        .one();
    }
}

/// A cast or a send that went nowhere, for the log.
#[derive(Clone, Copy, Debug)]
pub struct Drop<'a> {
    pub direction: &'static str,
    pub kind: &'static str,
    pub realm: &'a str,
    pub engine: &'a str,
    pub reason: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_explained() {
        let page = include_str!("../../../../docs/counters.md");
        let counters = Counters::default();
        let names = counters.all().into_iter().map(|(name, _)| name);
        let beam = crate::realm::status::beam_counters(&Default::default()).map(|(name, _)| name);
        for name in names.chain(beam) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}

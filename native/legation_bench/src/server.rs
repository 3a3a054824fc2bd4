//! Counts casts and answers calls with how many there were.

use std::io::Read;

use legation_channel::channel::Profile;
use legation_proto::session::{Event, Session};

use crate::end::{names, number_term, Realm, Role};
use crate::socket::{drive, Driven, Listener, Sink};
use crate::Outcome;

pub const ENGINES: usize = 100;

#[derive(Default)]
struct Counting {
    casts: u64,
    calls: Vec<u64>,
}

impl Sink for Counting {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Deliver { .. } => self.casts += 1,
            Event::Call { call_id, .. } => self.calls.push(call_id),
            _ => {}
        }
    }

    fn followed(&mut self, session: &Session) -> bool {
        let answer = number_term(self.casts);
        self.calls.drain(..).fold(false, |wake, call_id| session.reply(call_id, &answer).is_ok_and(|p| p.wake) | wake)
    }
}

pub fn run(profile: Profile, address: &str) -> Outcome<()> {
    let (listener, bound) = Listener::bind(profile, address)?;
    let realm = Realm::new(Role::Server);
    println!("READY {bound}");
    std::thread::spawn(end_with_input);
    loop {
        let carrier = listener.accept()?;
        let driven = Driven::new(realm.accept(profile)?);
        let up = |session: &std::sync::Arc<Session>| realm.announce(session, &names('e', ENGINES));
        drive(&driven, carrier, &mut Counting::default(), up)?;
    }
}

fn end_with_input() {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|count| count > 0) {}
    std::process::exit(0);
}

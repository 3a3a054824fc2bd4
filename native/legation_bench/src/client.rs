//! Puts loads on a link: calls without a thread for each caller, casts from a thread for each sender.

use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use legation_channel::channel::Profile;
use legation_proto::session::{Delivery, Event, NewCall, PushError, Session};

use crate::end::{names, now, number_of, term, Realm, Role};
use crate::socket::{drive, lock, Carrier, Driven, Sink};
use crate::{result, Outcome};

const SOURCES: usize = 100;
/// Bytes that may wait to be sent before a sender waits, too: a quarter of what the queue takes.
const WAITING_BYTES_MAX: u64 = 4 * 1024 * 1024;
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Answers that have come and nobody has taken, by what the call was given; and whether the session stands.
#[derive(Default)]
struct Answers {
    up: bool,
    come: VecDeque<(u64, Option<u64>)>,
}

#[derive(Clone, Default)]
struct Inbox(Arc<(Mutex<Answers>, Condvar)>);

impl Inbox {
    fn put(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut lock(&self.0 .0));
        self.0 .1.notify_all();
    }

    fn take<T>(&self, mut take: impl FnMut(&mut Answers) -> Option<T>) -> Outcome<T> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let mut answers = lock(&self.0 .0);
        loop {
            if let Some(taken) = take(&mut answers) {
                return Ok(taken);
            }
            let left = deadline.checked_duration_since(Instant::now()).ok_or("nothing came from the server")?;
            answers = self.0 .1.wait_timeout(answers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Sink for Inbox {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Reply { context, payload, .. } = event {
            let context = context.try_into().map_or(0, u64::from_be_bytes);
            let answer = number_of(payload);
            self.put(|answers| answers.come.push_back((context, answer)));
        }
    }

    fn followed(&mut self, _session: &Session) -> bool {
        false
    }
}

struct Client {
    driven: Arc<Driven>,
    session: Arc<Session>,
    inbox: Inbox,
}

pub fn run(profile: Profile, address: &str) -> Outcome<()> {
    let realm = Realm::new(Role::Client);
    let carrier = Carrier::connect(profile, address)?;
    let server = *Realm::new(Role::Server).keyring.public();
    let driven = Driven::new(realm.connect(profile, &server)?);
    let inbox = Inbox::default();
    let (reader, mut sink) = (driven.clone(), inbox.clone());
    let up = inbox.clone();
    std::thread::spawn(move || {
        let announce = |session: &Arc<Session>| {
            realm.announce(session, &names('s', SOURCES))?;
            up.put(|answers| answers.up = true);
            Ok(())
        };
        if let Err(error) = drive(&reader, carrier, &mut sink, announce) {
            eprintln!("legation_bench: {error}");
        }
    });
    inbox.take(|answers| answers.up.then_some(()))?;
    let session = driven.link.session().ok_or("there is no session")?.clone();
    let client = Client { driven, session, inbox };
    println!("READY");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["call", bytes, callers, millis] => client.calls(bytes.parse()?, callers.parse()?, millis.parse()?)?,
            ["cast", bytes, senders, engines, millis] => {
                client.casts(bytes.parse()?, senders.parse()?, engines.parse()?, millis.parse()?)?
            }
            _ => return Err(format!("{line} is no load").into()),
        }
    }
    Ok(())
}

impl Client {
    /// The answer will be put into the inbox as `context`'s.
    fn call(&self, source: &str, destination: &str, context: u64, payload: &[u8]) -> Outcome<()> {
        let context = context.to_be_bytes();
        // Any eight bytes tell one calling process from another.
        let caller = &context;
        let call = NewCall { destination, label: 1, source, caller, context: &context, payload };
        if self.session.push_call(now(), &call)?.wake {
            self.driven.wake();
        }
        Ok(())
    }

    /// Each caller calls again as soon as it has its answer.
    fn calls(&self, bytes: usize, callers: usize, millis: u64) -> Outcome<()> {
        let payload = term(bytes);
        let begun = Instant::now();
        let finish = begun + Duration::from_millis(millis);
        let mut since = vec![begun; callers];
        let mut times = Vec::new();
        let mut open = callers;
        for caller in 0..callers {
            self.call("s1", "e1", caller as u64, &payload)?;
        }
        while open > 0 {
            let (caller, _) = self.inbox.take(|answers| answers.come.pop_front())?;
            let at = Instant::now();
            let since = &mut since[caller as usize];
            times.push((at - *since).as_secs_f64() * 1e6);
            *since = at;
            match at < finish {
                true => self.call("s1", "e1", caller, &payload)?,
                false => open -= 1,
            }
        }
        let elapsed = begun.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        let percentile = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
        let count = times.len() as f64;
        let per_second = count / elapsed;
        result(&[
            ("count", count),
            ("per_second", per_second),
            ("p50_us", percentile(0.5)),
            ("p99_us", percentile(0.99)),
        ]);
        Ok(())
    }

    fn casts(&self, bytes: usize, senders: usize, engines: usize, millis: u64) -> Outcome<()> {
        let payload = term(bytes);
        let (sources, engines) = (names('s', senders), names('e', engines));
        let before = self.arrived(&sources, &engines)?;
        let begun = Instant::now();
        let finish = begun + Duration::from_millis(millis);
        let sent = std::thread::scope(|scope| {
            let send = |source| self.cast_until(finish, source, &engines, &payload).map_err(|error| error.to_string());
            let threads: Vec<_> = sources.iter().map(|source| scope.spawn(move || send(source))).collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap_or(Err("a sender panicked".into())));
            counts.sum::<Result<u64, String>>()
        })?;
        let arrived = self.arrived(&sources, &engines)? - before;
        let elapsed = begun.elapsed().as_secs_f64();
        if arrived != sent {
            return Err(format!("{sent} casts sent, {arrived} arrived").into());
        }
        result(&[("count", sent as f64), ("per_second", sent as f64 / elapsed)]);
        Ok(())
    }

    fn cast_until(&self, finish: Instant, source: &str, engines: &[String], payload: &[u8]) -> Outcome<u64> {
        let mut sent = 0;
        // The clock is looked at now and then.
        while Instant::now() < finish {
            for engine in engines.iter().cycle().take(engines.len().max(64)) {
                while self.session.counters().queue_bytes.get() > WAITING_BYTES_MAX {
                    self.driven.wait_room();
                }
                match self.session.push(Delivery::Cast, source, engine, payload, false) {
                    Ok(pushed) if pushed.wake => self.driven.wake(),
                    Ok(_) => {}
                    Err(PushError::Overload) => return Err("the queue is full".into()),
                    Err(error) => return Err(error.into()),
                }
                sent += 1;
            }
        }
        Ok(sent)
    }

    /// How many casts have arrived, these sources' last ones included: order holds for each source and engine.
    fn arrived(&self, sources: &[String], engines: &[String]) -> Outcome<u64> {
        let mut asked = 0;
        for source in sources {
            for engine in engines {
                self.call(source, engine, asked, &term(0))?;
                asked += 1;
            }
        }
        let mut arrived = 0;
        for _ in 0..asked {
            let (_, count) = self.inbox.take(|answers| answers.come.pop_front())?;
            arrived = arrived.max(count.ok_or("the server answered with something else")?);
        }
        Ok(arrived)
    }
}

//! Both ends in one thread, with nothing between them but memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use legation_channel::channel::Profile;
use legation_channel::link::{Link, LinkEvent};
use legation_proto::session::{Delivery, Session};

use crate::end::{names, now, term, Realm, Role};
use crate::{result, Outcome};

const SOURCE: &str = "s1";

pub struct Pair {
    pub client: Link,
    pub server: Link,
    /// What the server's side took.
    pub serving: Duration,
}

impl Pair {
    /// A whole handshake, with knock, channel and hellos.
    pub fn up(realms: &[Realm; 2], profile: Profile) -> Outcome<Pair> {
        let [client, server] = realms;
        let mut pair = Pair {
            client: client.connect(profile, server.keyring.public())?,
            server: server.accept(profile)?,
            serving: Duration::ZERO,
        };
        pair.client.handle_timeout(now(), &mut |_| {});
        while pair.carry()? > 0 {}
        match pair.client.session().and(pair.server.session()) {
            Some(_) => Ok(pair),
            None => Err("there is no session".into()),
        }
    }

    /// Everything that waits goes over, both ways. How many bytes.
    pub fn carry(&mut self) -> Outcome<usize> {
        let mut out = Vec::new();
        while self.client.flush(&mut out)? {}
        let begun = Instant::now();
        take(&self.server, &out);
        let mut back = Vec::new();
        while self.server.flush(&mut back)? {}
        self.serving += begun.elapsed();
        take(&self.client, &back);
        Ok(out.len() + back.len())
    }

    pub fn sessions(&self) -> Outcome<[Arc<Session>; 2]> {
        let session = |link: &Link| link.session().cloned().ok_or("there is no session");
        Ok([session(&self.client)?, session(&self.server)?])
    }
}

fn take(link: &Link, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let mut decide = false;
    link.handle_bytes(now(), bytes, &mut |event| decide |= matches!(event, LinkEvent::Decide { .. }));
    if decide {
        link.accept(now(), None, None, &mut |_| {});
    }
    if let Some(session) = link.session() {
        session.delivered();
        crate::socket::grant(session);
    }
}

pub fn realms() -> [Realm; 2] {
    [Realm::new(Role::Client), Realm::new(Role::Server)]
}

/// Of two realms that come back to each other again and again, and of such that meet for the first time.
pub fn handshakes(millis: u64) -> Outcome<()> {
    let time = Duration::from_millis(millis);
    let realms = realms();
    // Their first; and AWS-LC gathers its first randomness for thirty milliseconds.
    Pair::up(&realms, Profile::Tls)?;
    let (mut count, mut serving) = (0.0, 0.0);
    let begun = Instant::now();
    while begun.elapsed() < time {
        serving += Pair::up(&realms, Profile::Tls)?.serving.as_secs_f64();
        count += 1.0;
    }
    let both = begun.elapsed().as_secs_f64();

    let (mut meeting, mut met) = (Duration::ZERO, 0);
    while meeting < time {
        let strangers = [Role::Client, Role::Server].map(|role| Realm::numbered(role, met));
        let begun = Instant::now();
        Pair::up(&strangers, Profile::Tls)?;
        meeting += begun.elapsed();
        met += 1;
    }
    result(&[
        ("both_per_second", count / both),
        ("server_per_second", count / serving),
        ("client_per_second", count / (both - serving)),
        ("strangers_per_second", met as f64 / meeting.as_secs_f64()),
    ]);
    Ok(())
}

/// Of a batch from one engine to one engine, and of one to as many engines as it has messages.
pub fn wire(bytes: usize, batch: usize) -> Outcome<()> {
    let overhead = |engines: usize| -> Outcome<f64> {
        let realms = realms();
        let mut pair = Pair::up(&realms, Profile::Tls)?;
        let [session, _] = pair.sessions()?;
        realms[0].announce(&session, &[SOURCE.to_owned()])?;
        while pair.carry()? > 0 {}
        let payload = term(bytes);
        for engine in names('e', engines).iter().cycle().take(batch) {
            session.push(Delivery::Cast, SOURCE, engine, &payload, false)?;
        }
        let mut out = Vec::new();
        while pair.client.flush(&mut out)? {}
        if session.counters().signed.get() != 1 {
            return Err("it was not one batch".into());
        }
        Ok((out.len() - batch * payload.len()) as f64 / batch as f64)
    };
    result(&[("overhead_bytes", overhead(1)?), ("overhead_bytes_many_engines", overhead(batch)?)]);
    Ok(())
}

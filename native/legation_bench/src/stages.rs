//! Where a message's time goes in the core: both ends' stages in one thread, each timed over whole batches.
//!
//! ```text
//!  push ─► [encode ─ sign] ─► seal ─── nothing ──► open ─► [verify ─ decode]
//! ```
//!
//! Signing and hashing happen inside of a flush, verifying inside of what handles a frame. So these are timed by themselves, on
//! as many bytes, and what is left of the flush is called encode, what is left of the other decode.

use std::sync::Arc;
use std::time::Instant;

use legation_channel::channel::{Channel, Profile};
use legation_channel::tls::TlsChannel;
use legation_proto::error::LinkError;
use legation_proto::identity::{check_public_key, verify, NetworkKey, Purpose};
use legation_proto::limits::Limits;
use legation_proto::session::{Attachment, Delivery, Session};

use crate::end::{now, term, Realm};
use crate::memory::{realms, Pair};
use crate::{result, Outcome};

/// Messages that are timed at least, after as many that are not.
const MESSAGES: usize = 200_000;
/// Batches at most, where they are small: each has two signatures.
const BATCHES_MAX: usize = 4_000;
const SOURCE: &str = "s1";

/// A session, by itself: no channel, no socket.
struct Side {
    session: Session,
    link: Arc<Attachment>,
}

impl Side {
    /// As the handshake left it.
    fn of(agreed: &Session, realm: &Realm) -> Outcome<Side> {
        let session = Session::new(agreed.agreed().clone(), Limits::default(), realm.keyring.clone());
        let link = session.attach(true, agreed.agreed().profile, now());
        realm.announce(&session, &[SOURCE.to_owned()])?;
        Ok(Side { session, link })
    }

    fn flush(&self, out: &mut Vec<u8>) {
        out.clear();
        while self.session.flush(&self.link, out) {}
    }

    /// How many messages were in it.
    fn handle(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        let mut events = 0;
        let plaintext = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(bytes);
            Ok::<(), LinkError>(())
        };
        self.session.handle_bytes(&self.link, now(), plaintext, &mut |_| events += 1).1?;
        self.session.delivered();
        crate::socket::grant(&self.session);
        Ok(events)
    }
}

#[derive(Clone, Copy)]
enum Stage {
    Push,
    Flush,
    Sign,
    Seal,
    Open,
    Handle,
    Verify,
}

/// Seconds by stage.
#[derive(Default)]
struct Clock([f64; 7]);

impl Clock {
    fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.0[stage as usize] += begun.elapsed().as_secs_f64();
        done
    }
}

pub fn run(bytes: usize, batch: usize) -> Outcome<()> {
    let realms = realms();
    let [client, server] = Pair::up(&realms, Profile::Tls)?.sessions()?;
    let (client, server) = (Side::of(&client, &realms[0])?, Side::of(&server, &realms[1])?);
    let mut channels = channels(&realms)?;
    let network = NetworkKey::none().id();
    let key = check_public_key(&realms[0].keyring.engine_public(SOURCE))?;
    let payload = term(bytes);
    let batches = (MESSAGES / batch).clamp(1, BATCHES_MAX);
    let mut clock = Clock::default();
    let (mut plain, mut wire, mut opened, mut back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..2 * batches {
        if number == batches {
            clock = Clock::default();
        }
        clock.time(Stage::Push, || {
            (0..batch).try_for_each(|_| client.session.push(Delivery::Cast, SOURCE, "e1", &payload, false).map(|_| ()))
        })?;
        clock.time(Stage::Flush, || client.flush(&mut plain));
        let signature = clock.time(Stage::Sign, || realms[0].keyring.sign_batch(SOURCE, &network, &plain));
        wire.clear();
        clock.time(Stage::Seal, || channels[0].seal(&plain, &mut wire))?;
        opened.clear();
        clock.time(Stage::Open, || channels[1].handle_bytes(&wire, &mut opened))?;
        let good = clock.time(Stage::Verify, || verify(&key, Purpose::Batch, &network, &plain, &signature));
        let events = clock.time(Stage::Handle, || server.handle(&opened))?;
        if !good || events < batch {
            return Err(format!("{events} of {batch} messages came").into());
        }
        // ACK and credit.
        server.flush(&mut back);
        client.handle(&back)?;
    }
    let each = |stage: Stage| clock.0[stage as usize] * 1e9 / (batches * batch) as f64;
    let (sign, verify) = (each(Stage::Sign), each(Stage::Verify));
    result(&[
        ("push", each(Stage::Push)),
        ("encode", each(Stage::Flush) - sign),
        ("sign", sign),
        ("seal", each(Stage::Seal)),
        ("open", each(Stage::Open)),
        ("verify", verify),
        ("decode", each(Stage::Handle) - verify),
    ]);
    Ok(())
}

/// Both ends of a TLS channel that stands.
fn channels(realms: &[Realm; 2]) -> Outcome<[Box<dyn Channel>; 2]> {
    let mut client: Box<dyn Channel> = Box::new(TlsChannel::initiator(realms[0].tls.clone())?);
    let mut server: Box<dyn Channel> = Box::new(TlsChannel::responder(realms[1].tls.clone())?);
    let mut nothing = Vec::new();
    while client.established().is_none() || server.established().is_none() {
        let mut flight = Vec::new();
        client.poll_transmit(&mut flight);
        server.handle_bytes(&flight, &mut nothing)?;
        flight.clear();
        server.poll_transmit(&mut flight);
        client.handle_bytes(&flight, &mut nothing)?;
    }
    Ok([client, server])
}

//! Handshakes that are not finished, not theirs, or not as they should be.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::hold;
use crate::keys::{Keys, Network};
use crate::link::{Link, Stream};
use crate::options::{Options, ANSWER_WAIT, STALL_WAIT};
use crate::peer::Peer;
use crate::random::fresh;

/// Up to a number of bytes, and then nothing, or the end.
pub fn stall(options: &Options) -> Result<(), String> {
    let from = Instant::now();
    let mut link = limited(options, options.byte)?;
    if options.attack == "cut-at" {
        link.run(ANSWER_WAIT, |link| link.left == 0);
        println!("sent={}\nbytes_back={}\nlink=cut", link.sent, link.bytes_in);
        return Ok(());
    }
    link.run(STALL_WAIT, |link| link.peer.told.is_some());
    println!("sent={}\nbytes_back={}", link.sent, link.bytes_in);
    println!("waited_ms={}", from.elapsed().as_millis());
    println!("link={}", link.state_unasked());
    Ok(())
}

fn limited(options: &Options, bytes: usize) -> Result<Link, String> {
    let mut link = options.link(options.peer()?)?;
    link.left = bytes;
    Ok(link)
}

/// How many bytes of ours a whole handshake has.
fn whole(options: &Options) -> Result<usize, String> {
    let mut link = options.link(options.peer()?)?;
    if !link.run(ANSWER_WAIT, |link| link.peer.session.is_some()) {
        return Err(format!("not even a good handshake: {}", link.state_unasked()));
    }
    Ok(link.sent)
}

/// Gone after each number of bytes.
pub fn cut_everywhere(options: &Options) -> Result<(), String> {
    let whole = whole(options)?;
    let places: Vec<usize> = (0..whole).step_by(options.byte.max(1)).collect();
    for bytes in &places {
        let mut link = limited(options, *bytes)?;
        if !link.run(ANSWER_WAIT, |link| link.left == 0) {
            return Err(format!("{} of {bytes} bytes could be sent: {}", link.sent, link.state_unasked()));
        }
    }
    println!("whole={whole}\nsent={}\nlink=cut", places.len());
    Ok(())
}

/// Silent after each number of bytes, many at a time; all are closed by the other side, or it says which weren't.
pub fn stall_everywhere(options: &Options) -> Result<(), String> {
    let whole = whole(options)?;
    let places: Vec<usize> = (0..whole).step_by(options.byte.max(1)).collect();
    let mut slowest = 0;
    let mut left_open = 0;
    for some in places.chunks(400) {
        let mut links = Vec::new();
        for bytes in some {
            let mut link = limited(options, *bytes)?;
            link.run(ANSWER_WAIT, |link| link.left == 0);
            links.push((Instant::now(), link));
        }
        for (from, mut link) in links {
            link.run(STALL_WAIT, |_| false);
            left_open += usize::from(!link.closed);
            slowest = slowest.max(from.elapsed().as_millis());
        }
    }
    println!("whole={whole}\nsent={}\nleft_open={left_open}\nwaited_ms={slowest}", places.len());
    Ok(())
}

pub fn replay_knock(options: &Options) -> Result<(), String> {
    let mut link = options.link(options.peer()?)?;
    let first_flight = link.peer.channel.out.clone();
    let first = link.run(ANSWER_WAIT, |link| link.peer.session.is_some() || link.peer.told.is_some());
    println!("first={}", if first { "answered" } else { "unanswered" });
    drop(link);
    let (bytes_back, link) = say(options, &first_flight)?;
    println!("sent=2\nbytes_back={bytes_back}\nlink={link}");
    Ok(())
}

/// All that was written in a session, with a message in it, again.
pub fn replay_handshake(options: &Options) -> Result<(), String> {
    let mut link = options.link(options.peer()?)?;
    link.written = Some(Vec::new());
    link.run(ANSWER_WAIT, |link| link.peer.session.is_some() || link.peer.told.is_some());
    link.peer.announce(&["e1"]);
    link.peer.cast("e1", &options.engine, &crate::term::text("recorded"));
    println!("first={}", link.state(ANSWER_WAIT));
    let written = link.written.take().unwrap_or_default();
    drop(link);
    let (bytes_back, link) = say(options, &written)?;
    println!("sent={}\nbytes_back={bytes_back}\nlink={link}", written.len());
    Ok(())
}

/// On a connection of its own; what came back until the other side closed.
fn say(options: &Options, bytes: &[u8]) -> Result<(usize, &'static str), String> {
    let mut stream = options.stream()?;
    stream.set_read_timeout(Some(STALL_WAIT)).map_err(|error| error.to_string())?;
    let _gone_already = stream.write_all(bytes);
    let mut back = Vec::new();
    Ok(match stream.read_to_end(&mut back) {
        Ok(_) => (back.len(), "closed-silently"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => (back.len(), "closed-silently"),
        Err(_) => (back.len(), "silent"),
    })
}

pub fn wrong_network(options: &Options) -> Result<(), String> {
    let mut peer = options.peer_of(options.keys()?, Network::of(fresh()))?;
    // Where there is no knock it says its hello all the same.
    peer.channel.trusting = true;
    let mut link = options.link(peer)?;
    link.run(STALL_WAIT, |link| link.peer.told.is_some());
    println!("sent=1\nbytes_back={}\nlink={}", link.bytes_in, link.state_unasked());
    Ok(())
}

/// Of a stranger's each time; then with the right one.
pub fn wrong_keys(options: &Options) -> Result<(), String> {
    let mut unlisted = 0;
    for _ in 0..options.count {
        let mut link = options.link(options.peer_of(Keys::stranger(), options.network)?)?;
        link.run(ANSWER_WAIT, |link| link.peer.told.is_some() || link.peer.session.is_some());
        unlisted += usize::from(link.state_unasked() == "closed:unlisted");
    }
    println!("sent={}\nunlisted={unlisted}", options.count);
    println!("link={}", options.up_again()?.state(ANSWER_WAIT));
    Ok(())
}

/// Hellos with something about them, each on a link of its own: `name=outcome`.
pub fn hellos(options: &Options) -> Result<(), String> {
    type Change = fn(&mut Vec<u8>);
    let extension = |kind: u16, bytes: &[u8]| {
        let one = [&kind.to_le_bytes()[..], &(bytes.len() as u16).to_le_bytes(), bytes].concat();
        move |body: &mut Vec<u8>| {
            let at = body.len() - 2;
            body.truncate(at);
            body.extend((one.len() as u16).to_le_bytes());
            body.extend(&one);
        }
    };
    let mut outcomes = Vec::new();
    let mut try_this = |name: &str, change: &mut dyn FnMut(&mut Peer)| -> Result<(), String> {
        let mut peer = options.peer()?;
        change(&mut peer);
        let mut link = options.link(peer)?;
        link.run(ANSWER_WAIT, |link| link.peer.told.is_some() || link.peer.session.is_some());
        let state = if link.peer.session.is_some() { link.state(ANSWER_WAIT) } else { link.state_unasked() };
        outcomes.push(format!("{name}={state}"));
        Ok(())
    };
    let before: [(&str, Change); 14] = [
        ("as-it-should-be", |_| {}),
        ("role", |body| body[0] = 2),
        ("role-0", |body| body[0] = 0),
        ("profile", |body| body[1] ^= 3),
        ("version-later", |body| body[2..6].copy_from_slice(&[2, 0, 9, 0])),
        ("version-0", |body| body[2..6].copy_from_slice(&[0; 4])),
        ("version-range", |body| body[2..6].copy_from_slice(&[1, 0, 255, 255])),
        ("version-backwards", |body| body[2..6].copy_from_slice(&[9, 0, 1, 0])),
        ("own-realm", |body| body[14] ^= 1),
        ("other-responder", |body| body[46] ^= 1),
        ("other-key", |body| body[78] ^= 1),
        ("binding", |body| body[110] ^= 1),
        ("rotations-17", |body| {
            body[182..184].copy_from_slice(&17u16.to_le_bytes());
            body.splice(184..184, [0; 17 * 176]);
        }),
        ("trailing", |body| body.push(0)),
    ];
    for (name, change) in before {
        try_this(name, &mut |peer| peer.twist = Some(Box::new(change)))?;
    }
    let after: [(&str, Change); 3] = [
        ("signature", |body| {
            let at = body.len() - 1;
            body[at] ^= 1;
        }),
        ("cut-short", |body| body.truncate(100)),
        ("too-large", |body| body.resize(4_097, 0)),
    ];
    for (name, change) in after {
        try_this(name, &mut |peer| peer.twist_signed = Some(Box::new(change)))?;
    }
    for (name, kind, bytes) in [
        ("unknown-extension", 77, vec![1, 2, 3]),
        ("unknown-critical-extension", 77 | 0x8000, vec![1, 2, 3]),
        ("window-of-nothing", 2, vec![0; 4]),
        ("session-that-is-none", 1, vec![7; 32].into_iter().chain([0]).collect()),
        ("revocation-that-is-none", 0x8003, vec![7; 136]),
    ] {
        let change = extension(kind, &bytes);
        try_this(name, &mut |peer| peer.twist = Some(Box::new(change.clone())))?;
    }
    println!("sent={}\n{}", outcomes.len(), outcomes.join("\n"));
    Ok(())
}

/// So many connections, of which each says nothing, or a byte, or a part of a knock, or a whole one, until told to end. When the
/// operating system has no more of them the first ones go.
pub fn half_open(options: &Options) -> Result<(), String> {
    let mut open: VecDeque<Stream> = VecDeque::new();
    let mut given_up = 0;
    let mut refused = 0;
    for number in 0..options.count {
        let mut stream = loop {
            match options.stream() {
                Ok(stream) => break Some(stream),
                // Too many files, or nobody takes it in time.
                Err(_) if open.pop_front().is_some() => given_up += 1,
                Err(_) => break None,
            }
        };
        let Some(stream) = stream.take() else {
            refused += 1;
            continue;
        };
        let first = options.peer()?.channel.out;
        let bytes = match number % 4 {
            0 => 0,
            1 => 1,
            2 => first.len() / 2,
            _ => first.len(),
        };
        let mut stream = stream;
        let _gone_already = stream.write_all(&first[..bytes]);
        open.push_back(stream);
    }
    hold();
    println!("sent={}\ngiven_up={given_up}\nrefused={refused}\nlink=cut", options.count);
    Ok(())
}

/// So many handshakes, of which each goes on by a byte now and then, until told to end; who was closed begins anew.
pub fn slow_loris(options: &Options) -> Result<(), String> {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let first = || Ok::<_, String>((options.stream()?, options.peer()?.channel.out, 0));
    let mut open = (0..options.count).map(|_| first()).collect::<Result<Vec<_>, String>>()?;
    let told = stop.clone();
    std::thread::spawn(move || {
        hold();
        told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let (mut bytes, mut closed) = (0, 0);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        for one in &mut open {
            let (stream, out, at) = one;
            // A whole handshake is never said: the last byte of the first flight is kept back.
            let goes_on = *at + 1 < out.len() && stream.write_all(&out[*at..=*at]).is_ok();
            if goes_on {
                *at += 1;
                bytes += 1;
            } else {
                closed += 1;
                *one = first()?;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("sent={bytes}\nbegun_anew={closed}\nlink=cut");
    Ok(())
}

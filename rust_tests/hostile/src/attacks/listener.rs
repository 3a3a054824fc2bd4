//! Who is dialled, and is not who was meant, or not as they should be. It serves one dialler after the other, until it is told to end, and
//! says how many, and how much they said behind their openings. With `--unix` it is dialled there.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::hold;
use crate::channel::{Answer, Profile, Role};
use crate::frame::frame;
use crate::keys::{Keys, Network};
use crate::link::{Link, Stream};
use crate::options::{now, Options};
use crate::peer::{Config, Peer};
use crate::random::{fresh, Random};

pub fn run(options: &Options) -> Result<(), String> {
    let mut accept = listener(options)?;
    let served = Arc::new(AtomicUsize::new(0));
    let behind = Arc::new(AtomicUsize::new(0));
    let (count, heard) = (served.clone(), behind.clone());
    let (profile, pem) = (options.profile, options.pem.clone());
    let (network, dialler, attack) = (options.network, options.peer, options.attack.clone());
    let knock = options.unix.is_none() && profile != Profile::Local;
    let answer = answer(options);
    let serving = Arc::new(Mutex::new(()));
    let (busy, impostor) = (serving.clone(), !matches!(answer, Answer::Right));
    std::thread::spawn(move || {
        while let Ok(stream) = accept() {
            count.fetch_add(1, Ordering::Relaxed);
            let _until_it_is_counted = busy.lock();
            // Its own identity, though another was dialled; only `listen-properly` has the one that is meant.
            let keys = Keys::from_pem(&pem).expect("it was read before");
            let config = Config { keys, network, profile, role: Role::Responder, knock, peer: dialler, now: now() };
            // How it ends is the dialler's business.
            if let Ok(link) = serve(stream, config, &attack, answer.clone()) {
                heard.fetch_add(link.peer.channel.behind, Ordering::Relaxed);
            }
        }
    });
    hold();
    // Whoever it is that nobody speaks with any more has been told to go.
    let _nobody_else = impostor.then(|| serving.lock());
    println!("sent={}", served.load(Ordering::Relaxed));
    println!("behind={}", behind.load(Ordering::Relaxed));
    Ok(())
}

/// What is accepted next, from a port that is told, or the path.
fn listener(options: &Options) -> Result<Box<dyn FnMut() -> std::io::Result<Stream> + Send>, String> {
    if let Some(path) = &options.unix {
        let listener = UnixListener::bind(path).map_err(|error| format!("{path}: {error}"))?;
        return Ok(Box::new(move || listener.accept().map(|(stream, _)| Stream::Unix(stream))));
    }
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    println!("port={}", listener.local_addr().map_err(|error| error.to_string())?.port());
    Ok(Box::new(move || listener.accept().map(|(stream, _)| Stream::Tcp(stream))))
}

/// What it says in the answer's place (4.6).
fn answer(options: &Options) -> Answer {
    match options.attack.as_str() {
        "listen-silent" => Answer::Nothing,
        "listen-other-network" => Answer::Keyed(fresh()),
        "listen-no-network" => Answer::Keyed(Network::default().key),
        "listen-answer-recorded" => Answer::Recorded(Arc::new(OnceLock::new())),
        "listen-answer-reflected" => Answer::Reflected,
        "listen-answer-garbage" => Answer::Garbage(options.byte),
        "listen-answer-long" => Answer::Long(options.byte as u16),
        "listen-answer-cut" => Answer::Cut(options.byte),
        _ => Answer::Right,
    }
}

fn serve(stream: Stream, config: Config, attack: &str, answer: Answer) -> Result<Link, String> {
    let keys_of_another = attack == "listen-as-another";
    let config = if keys_of_another { Config { keys: Keys::stranger(), ..config } } else { config };
    let mut peer = Peer::new(config)?;
    peer.channel.answer = answer;
    match attack {
        "listen-mute" | "listen-reflecting" | "listen-garbage" => peer.mute = true,
        "listen-forged" => {
            peer.twist_signed = Some(Box::new(|body| {
                let at = body.len() - 1;
                body[at] ^= 1;
            }))
        }
        "listen-other-version" => peer.twist = Some(Box::new(|body| body[2..6].copy_from_slice(&[2, 0, 9, 0]))),
        _ => {}
    }
    let mut link = Link::new(stream, peer).map_err(|error| error.to_string())?;
    if attack == "listen-reflecting" {
        // The dialler's own hello, as it came; `session` says that it is there.
        link.run(Duration::from_secs(5), |link| link.peer.hello_received.is_some());
        let hello = link.peer.hello_received.clone().unwrap_or_default();
        link.peer.write_frame(crate::frame::HELLO, &hello);
    }
    if attack == "listen-garbage" {
        link.run(Duration::from_secs(5), |link| link.peer.channel.facts.is_some());
        let seed = u64::from_le_bytes(fresh()[..8].try_into().expect("8 bytes"));
        let mut random = Random::of(seed >> 2);
        let length = random.below(300) as usize;
        let bytes = random.bytes(length);
        link.peer.write(&frame(1, 1, length as u32, &bytes));
    }
    // Until the dialler has had enough.
    link.run(Duration::from_secs(20), |link| link.peer.told.is_some());
    Ok(link)
}

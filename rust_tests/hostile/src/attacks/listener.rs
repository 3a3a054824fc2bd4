//! Who is dialled, and is not who was meant, or not as they should be. It serves one dialler after the other, until it is told to end.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::hold;
use crate::channel::{Profile, Role};
use crate::frame::frame;
use crate::keys::Keys;
use crate::link::{Link, Stream};
use crate::options::{now, Options};
use crate::peer::{Config, Peer};
use crate::random::{fresh, Random};

pub fn run(options: &Options) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    println!("port={}", listener.local_addr().map_err(|error| error.to_string())?.port());
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let (profile, pem) = (options.profile, options.pem.clone());
    let (network, dialler, attack) = (options.network, options.peer, options.attack.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Its own identity, though another was dialled; only `listen-properly` has the one that is meant.
            let keys = Keys::from_pem(&pem).expect("it was read before");
            let config =
                Config { keys, network, profile, role: Role::Responder, knock: false, peer: dialler, now: now() };
            let _the_diallers_business = serve(stream, config, &attack);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    hold();
    println!("sent={}", served.load(Ordering::Relaxed));
    Ok(())
}

fn serve(stream: std::net::TcpStream, config: Config, attack: &str) -> Result<(), String> {
    let profile = config.profile;
    let mut stream = Stream::Tcp(stream);
    if profile != Profile::Local {
        skip_knock(&mut stream).map_err(|error| error.to_string())?;
    }
    let keys_of_another = attack == "listen-as-another";
    let config = if keys_of_another { Config { keys: Keys::stranger(), ..config } } else { config };
    let mut peer = Peer::new(config)?;
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
    Ok(())
}

/// What it knocks with is not looked at.
fn skip_knock(stream: &mut Stream) -> std::io::Result<()> {
    use std::io::Read;
    let mut header = [0; 58];
    stream.read_exact(&mut header)?;
    // The length of the first flight stays out as well: the flight is the channel's.
    stream.read_exact(&mut [0; 2])
}

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{soon, COOKIE};

/// What OTP 25 offers.
const FLAGS: u64 = 0xD_07DF_7FBD;
const CHALLENGE: u32 = 0xDEAD_BEEF;

/// One frame of a handshake.
pub fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut frame = u16::try_from(body.len()).expect("short").to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

pub fn name_frame(node: &str) -> Vec<u8> {
    let length = u16::try_from(node.len()).expect("short").to_be_bytes();
    framed(&[b"N", &FLAGS.to_be_bytes(), &5u32.to_be_bytes(), &length, node.as_bytes()])
}

pub fn challenge_frame(node: &str) -> Vec<u8> {
    let length = u16::try_from(node.len()).expect("short").to_be_bytes();
    let (challenge, creation) = (CHALLENGE.to_be_bytes(), 5u32.to_be_bytes());
    framed(&[b"N", &FLAGS.to_be_bytes(), &challenge, &creation, &length, node.as_bytes()])
}

/// `frame`: a challenge.
pub fn reply_frame(frame: &[u8]) -> Vec<u8> {
    framed(&[b"r", &CHALLENGE.to_be_bytes(), &digest(&frame[9..13])])
}

/// `frame`: the answer to our challenge.
pub fn acknowledgement_frame(frame: &[u8]) -> Vec<u8> {
    framed(&[b"a", &digest(&frame[1..5])])
}

fn digest(challenge: &[u8]) -> [u8; 16] {
    let challenge = u32::from_be_bytes(challenge.try_into().expect("four bytes"));
    md5::compute(format!("{COOKIE}{challenge}")).0
}

/// A node written by hand.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn dial(port: u16) -> Raw {
        Raw(TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens"))
    }

    /// Dials and goes through the handshake.
    pub async fn connect(port: u16, node: &str) -> Raw {
        let mut raw = Raw::dial(port).await;
        assert_eq!(raw.say(node).await, "ok");
        raw.prove().await;
        raw
    }

    /// Says who it is; the status that it gets.
    pub async fn say(&mut self, node: &str) -> String {
        self.send(&name_frame(node)).await;
        let status = self.frame().await.expect("a status");
        String::from_utf8(status[1..].to_vec()).expect("a word")
    }

    /// The rest of the handshake of who dialled.
    pub async fn prove(&mut self) {
        let challenge = self.frame().await.expect("a challenge");
        self.send(&reply_frame(&challenge)).await;
        assert_eq!(self.frame().await.expect("an acknowledgement")[0], b'a');
    }

    /// The rest of the handshake of who was dialled, after the name.
    pub async fn take_in(&mut self, node: &str) {
        self.send(&framed(&[b"sok"])).await;
        self.send(&challenge_frame(node)).await;
        let reply = self.frame().await.expect("an answer");
        self.send(&acknowledgement_frame(&reply)).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the connection lives");
    }

    /// As [`send`](Self::send), to somebody who may have closed.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame of a handshake without its length; none at the end.
    pub async fn frame(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let length = self.0.read_u16().await.ok()?;
            let mut frame = vec![0; usize::from(length)];
            self.0.read_exact(&mut frame).await.ok()?;
            Some(frame)
        };
        soon("a frame", read).await
    }

    /// Reads to the end.
    pub async fn closed(&mut self) {
        let read = async { while !matches!(self.0.read(&mut [0; 4_096]).await, Ok(0) | Err(_)) {} };
        soon("the end of the connection", read).await;
    }
}

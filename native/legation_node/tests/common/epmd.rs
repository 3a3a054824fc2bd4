use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::free_port;

/// An `epmd` of our own.
pub struct Epmd {
    pub port: u16,
    child: Option<Child>,
}

impl Epmd {
    pub fn start() -> Epmd {
        let mut epmd = Epmd { port: free_port(), child: None };
        epmd.restart();
        epmd
    }

    /// A port where there is no EPMD until [`restart`](Self::restart).
    pub fn absent() -> Epmd {
        Epmd { port: free_port(), child: None }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Returns when it answers.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &self.port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("epmd is installed"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "epmd does not answer");
            std::thread::yield_now();
        }
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        self.kill();
    }
}

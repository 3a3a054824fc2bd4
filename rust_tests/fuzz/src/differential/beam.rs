//! An Erlang VM that is asked what it says to terms: hundreds in one packet, so that the pipe is not what is measured.
//!
//! ```text
//!  ──► length:32, (length:32 bytes) ...          ◄── length:32, (bits:8 used:32) ...      bits: safe 1, plain 2, safe again 4
//! ```

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use super::Opinion;

const ANSWERS: &str = r#"
Port = open_port({fd, 0, 1}, [binary, {packet, 4}, eof]),
Read = fun(Bytes, Options) -> try binary_to_term(Bytes, [used | Options]) of {_, Used} -> Used catch error:_ -> 0 end end,
Bit = fun(0, _) -> 0; (_, Bit) -> Bit end,
Judge = fun(Bytes) ->
    case Read(Bytes, [safe]) of
        0 ->
            Plain = Read(Bytes, []),
            Again = case Plain of 0 -> 0; _ -> Read(Bytes, [safe]) end,
            <<(Bit(Plain, 2) bor Bit(Again, 4)):8, Plain:32>>;
        Used ->
            <<7:8, Used:32>>
    end
end,
Loop = fun Loop() ->
    receive
        {Port, {data, Packet}} ->
            port_command(Port, [Judge(Bytes) || <<Length:32, Bytes:Length/binary>> <= Packet]),
            Loop();
        {Port, eof} ->
            halt()
    end
end,
Loop().
"#;

/// Ends with its input, when this is dropped.
pub struct Beam {
    child: Child,
}

impl Beam {
    /// The `erl` of the path.
    ///
    /// # Errors
    /// When there is none.
    pub fn start() -> io::Result<Beam> {
        let mut command = Command::new("erl");
        // A stray length must cost no gigabytes, and atoms are made of whatever comes.
        command.args(["-noinput", "-boot", "start_clean", "+t", "5000000", "-eval", ANSWERS]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Beam { child })
    }

    /// # Errors
    /// When it has ended, or answers something else.
    pub fn ask(&mut self, inputs: &[Vec<u8>]) -> io::Result<Vec<Opinion>> {
        let mut packet = Vec::new();
        for input in inputs {
            packet.extend((input.len() as u32).to_be_bytes());
            packet.extend(input);
        }
        let gone = || io::Error::other("the Erlang VM has ended");
        let to = self.child.stdin.as_mut().ok_or_else(gone)?;
        to.write_all(&(packet.len() as u32).to_be_bytes())?;
        to.write_all(&packet)?;
        to.flush()?;
        let from = self.child.stdout.as_mut().ok_or_else(gone)?;
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut answer)?;
        if answer.len() != 5 * inputs.len() {
            return Err(io::Error::other("an answer for each was expected"));
        }
        let opinion = |answer: &[u8]| Opinion {
            safe: answer[0] & 1 != 0,
            plain: answer[0] & 2 != 0,
            safe_again: answer[0] & 4 != 0,
            used: u32::from_be_bytes([answer[1], answer[2], answer[3], answer[4]]) as usize,
        };
        Ok(answer.chunks(5).map(opinion).collect())
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It halts at the end of its input.
        let _ = self.child.wait();
    }
}

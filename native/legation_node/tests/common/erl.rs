use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};

use super::{soon, COOKIE};

/// Reads a line of expressions, evaluates them, writes the value of the last; ends with its input.
const LOOP: &str = r#"
Loop = fun Loop() ->
    case io:get_line("") of
        Line when is_list(Line) ->
            Reply = try
                {ok, Tokens, _} = erl_scan:string(Line),
                {ok, Expressions} = erl_parse:parse_exprs(Tokens),
                {value, Value, _} = erl_eval:exprs(Expressions, []),
                io_lib:format("~0p", [Value])
            catch Class:Reason ->
                io_lib:format("~0p", [{Class, Reason}])
            end,
            io:put_chars(["=> ", Reply, "\n"]),
            Loop();
        _ ->
            halt()
    end
end,
Loop().
"#;

/// How a node is started, where it isn't as usual.
#[derive(Clone, Debug)]
pub struct ErlOptions {
    pub cookie: String,
    /// `None`: it does without.
    pub epmd_port: Option<u16>,
    /// More of the command line.
    pub arguments: Vec<String>,
}

impl ErlOptions {
    pub fn epmd(port: u16) -> ErlOptions {
        ErlOptions { cookie: COOKIE.to_string(), epmd_port: Some(port), arguments: Vec::new() }
    }

    /// All nodes listen on one port, each of a host of its own.
    pub fn without_epmd(port: u16) -> ErlOptions {
        let arguments = ["-erl_epmd_port", &port.to_string()].map(str::to_string).to_vec();
        ErlOptions { cookie: COOKIE.to_string(), epmd_port: None, arguments }
    }

    pub fn arguments(mut self, arguments: &[&str]) -> ErlOptions {
        self.arguments.extend(arguments.iter().map(|argument| argument.to_string()));
        self
    }
}

/// An Erlang node that evaluates what it is given.
pub struct Erl {
    pub name: String,
    child: Child,
    input: ChildStdin,
    replies: UnboundedReceiver<String>,
}

impl Erl {
    /// Starts `name@127.0.0.1` and waits until it is there.
    pub async fn start(name: &str, options: &ErlOptions) -> Erl {
        let name = format!("{name}@127.0.0.1");
        let mut command = Command::new("erl");
        command.args(["-noshell", "-name", &name, "-setcookie", &options.cookie, "-start_epmd", "false"]);
        command.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "logger_level", "error"]);
        if let Some(port) = options.epmd_port {
            command.env("ERL_EPMD_PORT", port.to_string());
        }
        command.args(&options.arguments).args(["-eval", LOOP]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("erl is installed");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, replies) = unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                match line.strip_prefix("=> ") {
                    Some(reply) => {
                        let _ = sender.send(reply.to_string());
                    }
                    None => eprintln!("{line}"),
                }
            }
        });
        let mut node = Erl { name, child, input, replies };
        assert_eq!(node.eval("node().").await, format!("'{}'", node.name));
        node
    }

    /// The value of an expression, as `~0p` writes it.
    pub async fn eval(&mut self, expression: &str) -> String {
        self.ask(expression);
        self.reply().await
    }

    /// As [`eval`](Self::eval), but the value is fetched with [`reply`](Self::reply).
    pub fn ask(&mut self, expression: &str) {
        let line = expression.replace('\n', " ");
        writeln!(self.input, "{line}").expect("the node lives");
    }

    pub async fn reply(&mut self) -> String {
        soon("a reply of the node", self.replies.recv()).await.expect("the node lives")
    }

    pub fn kill(mut self) {
        self.end();
    }

    /// It does nothing any more, its sockets stay.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is installed").success());
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Erl {
    fn drop(&mut self) {
        self.end();
    }
}

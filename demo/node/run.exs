# A plain Erlang node with the daemon beside it, an embedded realm across a TLS link, and another plain node with another daemon.
# Started by scripts/demo-node:
#
#   elixir demo/node/run.exs DIR LEGATION
#
# DIR is an empty directory for keys, sockets and logs; LEGATION the daemon's program. This VM starts all others, has them
# evaluate what it prints, and compares what comes of it with what it must be.

files = ["../vm.exs", "../report.exs", "../steps.exs", "../../test/support/cable.ex"]
files = files ++ ["daemon.exs", "systems.exs", "engines.exs", "pids.exs", "cable.exs", "failures.exs"]
for file <- files, do: Code.require_file(file, __DIR__)

defmodule Demo.Node do
  alias Demo.{Cable, Engines, Failures, Pids, Systems}

  def main([dir, program]) do
    systems = dir |> Systems.keys(program) |> Systems.start()

    Engines.out_of_a_plain_node(systems)
    Engines.into_a_plain_node(systems)
    systems = Engines.from_a_cluster(systems)
    systems = Engines.daemon_to_daemon(systems)

    Pids.cross(systems)
    Cable.cut(systems)

    Failures.refused(systems)
    systems = Failures.killed(systems)

    Systems.overview(systems)
    Systems.stop(systems)
  end
end

Demo.Steps.run(System.argv(), &Demo.Node.main/1)

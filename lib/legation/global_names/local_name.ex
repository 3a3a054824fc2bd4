defmodule Legation.GlobalNames.LocalName do
  @moduledoc false
  # A name of this node can only be a process of this node. Where a foreign engine is a process of the daemon's, this one has
  # the name of `import: [{"ping@bob", as: :ping_bob}]`, and hands on what it gets. A reply goes to the caller at once, as
  # `from` is what it was.
  #
  # It ends when the engine's process does, and with the same reason, so who monitors it sees the same.

  @idle_ms 1_000

  @doc "A process for `target`, that ends with `owner` as well."
  def start(target, owner), do: spawn(__MODULE__, :init, [target, owner])

  def init(target, owner) do
    Process.flag(:trap_exit, true)
    loop(target, Process.monitor(target), Process.monitor(owner))
  end

  # Called by its full name each time round, so that it is never more than a message away from new code.
  def loop(target, monitor, owner) do
    receive do
      {:DOWN, ^monitor, :process, _target, reason} -> exit(reason)
      {:DOWN, ^owner, :process, _owner, _reason} -> exit(:shutdown)
      # Somebody linked to us and died. Links don't cross.
      {:EXIT, _other, _reason} -> :ok
      message -> send(target, message)
    after
      @idle_ms -> :erlang.hibernate(__MODULE__, :loop, [target, monitor, owner])
    end

    __MODULE__.loop(target, monitor, owner)
  end
end

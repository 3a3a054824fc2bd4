defmodule Legation.Networks do
  @moduledoc """
  The two networks of `test/netns/namespaces.sh`, and what can happen to the cables between them. It is done by the kernel, so that
  nobody is told of it but by what becomes of the packets.

      Networks.cable(0, :down)        both ends know that nothing is plugged in; addresses cannot be reached, at once
      Networks.deafen(:a, 0)          what A sends is lost and nobody is told; what it gets arrives
      Networks.slow(0, kbit: 2_000, queue_ms: 100)
      Networks.reset(:a)              all connections of A to B end with a RST to each side
      Networks.mend(0)                as it was
  """

  import ExUnit.Assertions, only: [flunk: 1]

  # A card that nobody has: what is sent to it is lost on the way.
  @nobody "02:00:00:00:00:99"

  @doc "The namespace of a side, `:a` or `:b`."
  def namespace(:a), do: System.fetch_env!("LEGATION_NETNS_A")
  def namespace(:b), do: System.fetch_env!("LEGATION_NETNS_B")

  @doc "A side's address on a cable."
  def address(:a, cable), do: "10.77.#{cable}.1"
  def address(:b, cable), do: "10.77.#{cable}.2"

  @doc "Plugs one end in or out, or both. Where one end is out the other hears of it; its dials wait for an answer."
  def cable(number, state, sides \\ [:a, :b]) do
    for side <- sides, do: ip!(["-n", namespace(side), "link", "set", "veth#{number}", to_string(state)])
  end

  @doc "What this side sends is lost, what it gets arrives."
  def deafen(side, number),
    do: neighbour(side, number, "replace", ["lladdr", @nobody, "nud", "permanent"])

  def hear(side, number), do: neighbour(side, number, "del", [])

  defp neighbour(side, number, what, rest) do
    other = if side == :a, do: :b, else: :a
    ip!(["-n", namespace(side), "neigh", what, address(other, number), "dev", "veth#{number}"] ++ rest)
  end

  @doc "Both ways no faster than so many kbit/s; what has waited in the queue for longer than `queue_ms` is lost."
  def slow(number, kbit: kbit, queue_ms: queue_ms) do
    for side <- [:a, :b] do
      run!(
        "tc",
        ~w(-n #{namespace(side)} qdisc replace dev veth#{number} root tbf rate #{kbit}kbit burst 32kbit) ++
          ["latency", "#{queue_ms}ms"]
      )
    end
  end

  def fast(number) do
    for side <- [:a, :b],
        do: System.cmd("tc", ~w(-n #{namespace(side)} qdisc del dev veth#{number} root), stderr_to_stdout: true)
  end

  @doc "Ends all TCP connections of a side to the other, over a cable. Listeners stay."
  def reset(side, number) do
    other = if side == :a, do: :b, else: :a
    # Says what it has ended, and something of netlink.
    {_said, 0} =
      System.cmd("ip", ["netns", "exec", namespace(side), "ss", "-K", "-t", "dst", address(other, number)],
        stderr_to_stdout: true
      )
  end

  @doc "Undoes all that was done to a cable."
  def mend(number) do
    cable(number, :up)
    fast(number)

    for side <- [:a, :b],
        do: System.cmd("ip", ["-n", namespace(side), "neigh", "flush", "dev", "veth#{number}", "nud", "permanent"])
  end

  defp ip!(args), do: run!("ip", args)

  defp run!(program, args) do
    {output, status} = System.cmd(program, args, stderr_to_stdout: true)
    if status != 0, do: flunk("#{program} #{Enum.join(args, " ")}: #{output}")
  end
end

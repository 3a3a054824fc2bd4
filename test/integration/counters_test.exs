defmodule Legation.CountersTest do
  use Legation.Case, async: true

  test "docs/counters.md has every counter of an instance and of a session, and no other" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :unix)
    counters = Legation.counters(alice)
    of_session = counters.sessions |> Map.fetch!("bob") |> Map.keys()
    of_instance = Map.keys(counters) -- [:sessions, :ended]

    [_title, instance, daemon, session] = "docs/counters.md" |> File.read!() |> String.split("\n## ")
    others = if transport(alice) == :c_node, do: documented(daemon), else: []
    assert Enum.sort(documented(instance) ++ others) == of_instance |> Enum.map(&to_string/1) |> Enum.sort()
    assert documented(session) == of_session |> Enum.map(&to_string/1) |> Enum.sort()
  end

  # The names in the first column.
  defp documented(section) do
    for line <- String.split(section, "\n"),
        [_all, cell] <- [Regex.run(~r/^\| (`[^|]*) \|/, line)],
        [_all, name] <- Regex.scan(~r/`(\w+)`/, cell) do
      name
    end
    |> Enum.sort()
  end
end

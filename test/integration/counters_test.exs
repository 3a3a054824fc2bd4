defmodule Legation.CountersTest do
  use Legation.Case, async: true

  @tag :embedded
  test "docs/counters.md has every counter of an instance and of a session, and no other" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :unix)
    counters = Legation.counters(alice)
    of_session = counters.sessions |> Map.fetch!("bob") |> Map.keys()
    of_instance = Map.keys(counters) -- [:sessions, :ended]

    [_title, instance, _daemon, session] = "docs/counters.md" |> File.read!() |> String.split("\n## ")
    assert documented(instance) == of_instance |> Enum.map(&to_string/1) |> Enum.sort()
    assert documented(session) == of_session |> Enum.map(&to_string/1) |> Enum.sort()
  end

  @tag :c_node
  test "docs/counters.md has every counter of a daemon" do
    counters = Legation.counters(start_realm("alice"))
    [_title, instance, daemon, _session] = "docs/counters.md" |> File.read!() |> String.split("\n## ")
    of_daemon = counters |> Map.drop([:sessions, :ended]) |> Map.keys() |> Enum.map(&to_string/1)
    assert of_daemon -- (documented(instance) ++ documented(daemon)) == []
    assert documented(daemon) -- of_daemon == []
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

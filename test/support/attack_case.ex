defmodule Legation.AttackCase do
  @moduledoc """
  For scenarios of attacks: `@tag rows: [103]` says which rows of the table in `docs/attacks.md` a test shows, and `Legation.Victim` keeps the
  figures. With `LEGATION_ATTACK_REPORT` in the environment they are appended to that file, a line for each time that a victim was found
  well; `scripts/attack` makes a summary of it. `LEGATION_ATTACK=long` makes the numbers as large as the attacks' names say.
  """

  use ExUnit.CaseTemplate

  using do
    quote do
      use Legation.Case, async: false
      import Legation.AttackCase
      alias Legation.{Hostile, Neighbours, RawClient, Victim}
    end
  end

  setup_all do
    Legation.Hostile.build!()
    :ok
  end

  setup context do
    Process.put(__MODULE__, %{name: context.test, rows: List.wrap(context[:rows]), sent: 0})
    :ok
  end

  @doc "A large number for a long run, a smaller one otherwise."
  def many(short, long), do: if(System.get_env("LEGATION_ATTACK") == "long", do: long, else: short)

  @doc "Counts what the hostile peer has tried."
  def tried(report) do
    count = Enum.find_value(["sent", "cases"], &if(is_integer(report[&1]), do: report[&1])) || 0

    with %{} = scenario <- Process.get(__MODULE__),
         do: Process.put(__MODULE__, %{scenario | sent: scenario.sent + count})

    report
  end

  @doc "Writes down a comparison of an honest peer's 99th percentile in quiet, while another realm is attacked, and under attack, for the summary."
  def judged(transport, quiet_us, elsewhere_us, attacked_us) do
    with path when is_binary(path) <- System.get_env("LEGATION_ATTACK_REPORT"),
         %{} = scenario <- Process.get(__MODULE__) do
      words = ["judged", transport, Enum.join(scenario.rows, ","), quiet_us, elsewhere_us, attacked_us, scenario.name]
      File.write!(path, Enum.join(words, "\t") <> "\n", [:append])
    end
  end

  @doc "Writes down what has come of it."
  def report(transport, figures, counted) do
    with path when is_binary(path) <- System.get_env("LEGATION_ATTACK_REPORT"),
         %{sent: sent} = scenario <- Process.put(__MODULE__, %{Process.get(__MODULE__) | sent: 0}) do
      line = [
        transport,
        Enum.join(scenario.rows, ","),
        sent,
        counted,
        figures.deliveries,
        figures.quiet_p99_us || "-",
        figures.attack_p99_us || "-",
        scenario.name
      ]

      File.write!(path, Enum.join(line, "\t") <> "\n", [:append])
    end
  end
end

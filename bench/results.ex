defmodule Bench.Results do
  @moduledoc """
  What was measured, as it stands in the JSON: maps with text as keys.

    * `"rows"` - of loads: what the load was, the path, and in `"rounds"` each figure's values, one a round
    * `"facts"` - what is measured by itself: `"name"`, and its `"value"`s by name
    * `"missing"` - `"path"`s (or what else) that could not be measured, and `"why"`
    * `"complete"` - whether everything was to be measured
  """

  @doc "The date, the kind of machine without its name, and how it was measured."
  def header(config) do
    {family, os} = :os.type()
    version = :os.version() |> Tuple.to_list() |> Enum.join(".")

    %{
      date: DateTime.utc_now() |> DateTime.truncate(:second) |> DateTime.to_iso8601(),
      machine: %{
        processor: processor(),
        cores: System.schedulers_online(),
        os: "#{family} #{os} #{version}",
        otp: System.otp_release(),
        elixir: System.version()
      },
      rounds: config.rounds,
      milliseconds: config.millis
    }
  end

  defp processor do
    with {:ok, text} <- File.read("/proc/cpuinfo"),
         [_all, model] <- Regex.run(~r/^model name\s*: (.+)$/m, text) do
      model
    else
      _ -> to_string(:erlang.system_info(:system_architecture))
    end
  end

  @doc "The values of a figure of the row with these fields, one a round; `nil` if it was not measured."
  def values(results, fields, figure) do
    Enum.find_value(results["rows"], &(matches?(&1, fields) && &1["rounds"][figure]))
  end

  defp matches?(map, fields), do: Enum.all?(fields, fn {key, value} -> map[to_string(key)] == json(value) end)

  defp json(value) when is_atom(value), do: to_string(value)
  defp json(value), do: value

  @doc "A value of the fact with these fields, or nil."
  def fact(results, fields, key), do: Enum.find_value(results["facts"], &(matches?(&1, fields) && &1[key]))

  @doc "All facts of a name."
  def facts(results, name), do: Enum.filter(results["facts"], &(&1["name"] == name))

  @doc "Round by round: the first by the second."
  def ratios(nil, _base), do: nil
  def ratios(_values, nil), do: nil

  def ratios(values, base),
    do: Enum.zip_with(values, base, fn value, base -> if base == 0, do: 0.0, else: value / base end)

  @doc "Round by round: the higher."
  def higher(nil, _other), do: nil
  def higher(_values, nil), do: nil
  def higher(values, other), do: Enum.zip_with(values, other, &max/2)

  def median(values) do
    sorted = Enum.sort(values)
    {half, odd} = {div(length(sorted), 2), rem(length(sorted), 2)}
    if odd == 1, do: Enum.at(sorted, half), else: (Enum.at(sorted, half - 1) + Enum.at(sorted, half)) / 2
  end

  @doc "A number for people, to three digits or so."
  def number(value) when is_integer(value) and value < 10_000, do: "#{value}"
  def number(value) when value >= 1.0e9, do: "#{Float.round(value / 1.0e9, 2)} G"
  def number(value) when value >= 1.0e6, do: "#{Float.round(value / 1.0e6, 2)} M"
  def number(value) when value >= 1.0e4, do: "#{Float.round(value / 1.0e3, 1)} k"
  def number(value) when value >= 100, do: "#{round(value)}"
  def number(value) when value >= 10 or value == 0, do: "#{Float.round(value / 1, 1)}"
  def number(value), do: :erlang.float_to_binary(value / 1, decimals: 2)

  def bytes(bytes) when bytes >= 1_048_576, do: "#{div(bytes, 1_048_576)} MiB"
  def bytes(bytes) when bytes >= 1_024, do: "#{div(bytes, 1_024)} KiB"
  def bytes(bytes), do: "#{bytes} B"
end

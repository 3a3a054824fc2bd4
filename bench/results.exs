# Medians, spreads, and the file that keeps them.

defmodule Bench.Results do
  @doc "Of the values of all rounds, and of their ratios to the base's in the same round."
  def summary(values, base) do
    ratios = for {value, base} <- Enum.zip(values, base), base != 0, do: value / base
    %{median: median(values), min: Enum.min(values), max: Enum.max(values), x: median(ratios)}
  end

  def median([]), do: 0.0

  def median(values) do
    sorted = Enum.sort(values)
    {half, odd} = {div(length(sorted), 2), rem(length(sorted), 2)}
    if odd == 1, do: Enum.at(sorted, half), else: (Enum.at(sorted, half - 1) + Enum.at(sorted, half)) / 2
  end

  @doc "For people."
  def number(value) when value >= 1.0e9, do: "#{Float.round(value / 1.0e9, 2)} G"
  def number(value) when value >= 1.0e6, do: "#{Float.round(value / 1.0e6, 2)} M"
  def number(value) when value >= 100, do: "#{round(value)}"
  def number(value), do: "#{Float.round(value / 1, 1)}"

  def ratio(value), do: :erlang.float_to_binary(value / 1, decimals: 2)

  @doc "Time that all threads of these operating-system processes have had on processors. 0 where Linux doesn't tell."
  def processor_ns(programs) do
    for program <- programs, task <- Path.wildcard("/proc/#{program}/task/*/schedstat"), reduce: 0 do
      sum ->
        # A thread may end meanwhile.
        with {:ok, text} <- File.read(task),
             [nanoseconds | _] <- String.split(text),
             do: sum + String.to_integer(nanoseconds),
             else: (_ -> sum)
    end
  end

  @doc "Writes `NAME-DATE.json` into the directory, with the kind of machine."
  def write(dir, name, results) do
    File.mkdir_p!(dir)
    now = DateTime.utc_now() |> DateTime.truncate(:second)
    path = Path.join(dir, "#{name}-#{Calendar.strftime(now, "%Y%m%d-%H%M%S")}.json")
    File.write!(path, [json(Map.merge(%{date: DateTime.to_iso8601(now), machine: machine()}, results)), ?\n])
    IO.puts("\nwritten to #{Path.relative_to_cwd(path)}")
  end

  @doc "What matters of the machine, without its name."
  def machine do
    {family, os} = :os.type()
    version = :os.version() |> Tuple.to_list() |> Enum.join(".")

    %{
      processor: processor(),
      cores: System.schedulers_online(),
      os: "#{family} #{os} #{version}",
      otp: System.otp_release(),
      elixir: System.version()
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

  # Keys in order, so that two files can be compared line by line.
  defp json(map) when is_map(map) do
    members = map |> Enum.sort() |> Enum.map(fn {key, value} -> [inspect(to_string(key)), ": ", json(value)] end)
    ["{", Enum.intersperse(members, ", "), "}"]
  end

  defp json([first | _] = list) when is_map(first),
    do: ["[\n  ", Enum.intersperse(Enum.map(list, &json/1), ",\n  "), "\n]"]

  defp json(list) when is_list(list), do: ["[", Enum.intersperse(Enum.map(list, &json/1), ", "), "]"]
  defp json(value) when is_float(value), do: :erlang.float_to_binary(value, [:compact, decimals: 3])
  defp json(value) when is_integer(value), do: Integer.to_string(value)
  defp json(value) when is_binary(value) or is_atom(value), do: value |> to_string() |> text()

  # ASCII but for what inspect/1 leaves as it is in both.
  defp text(value), do: inspect(value, binaries: :as_strings, printable_limit: :infinity)
end

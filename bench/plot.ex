defmodule Bench.Plot do
  @moduledoc """
  Plots as SVG, readable on light and on dark ground: no ground of their own, text and lines in colours between.

  Both axes of `lines/1` are logarithmic: what matters are ratios, and sizes go over five orders of magnitude.
  """

  alias Bench.Results

  @width 860
  @height 440
  @left 76
  @right 250
  @top 52
  @bottom 52
  @key_columns 5
  @grey "#808890"
  @colours ~w(#3b82f6 #ef4444 #10a37f #d98a00 #8b5cf6 #db4f9f #0ea5b7 #8a9a2b #f2713a #6b7fd7 #b0734a #5fa35f #9a7fb8 #c0566b #4d94a8)

  @doc """
  `title`, `under` (a line below it), `x` (its label), `x_text` (a function, for its ticks), `series`: `[{label, colour, [{x, y}]}]`,
  a colour by its number.
  """
  def lines(%{series: series} = plot) do
    points = Enum.flat_map(series, &elem(&1, 2))
    {xs, ys} = {Enum.map(points, &elem(&1, 0)), Enum.map(points, &elem(&1, 1))}
    x_range = Enum.min_max(xs)
    {y_low, y_high} = y_range = decades(Enum.min_max(ys))
    x = &scale(&1, x_range, {@left, @width - @right})
    y = &scale(&1, y_range, {@height - @bottom, @top})
    # The legend has the order that the lines have at their right ends.
    series = Enum.sort_by(series, fn {_label, _colour, points} -> -(points |> List.last() |> elem(1)) end)

    [
      grid_x(Enum.uniq(Enum.sort(xs)), x, plot.x_text),
      grid_y(ticks(y_low, y_high), y),
      text((@left + @width - @right) / 2, @height - 10, plot.x, "middle", @grey),
      for {{label, number, points}, row} <- Enum.with_index(series) do
        colour = Enum.at(@colours, rem(number, length(@colours)))
        [line(points, x, y, colour), legend(label, row, colour)]
      end
    ]
    |> document(plot.title, plot.under, @height)
  end

  @doc "`bars`: `[{label, [{part, value}]}]`, each a row as wide as any other, of parts that add up; `unit` stands behind the sum."
  def bars(%{bars: bars} = plot) do
    names = bars |> Enum.flat_map(fn {_label, parts} -> Enum.map(parts, &elem(&1, 0)) end) |> Enum.uniq()
    colours = names |> Enum.zip(Stream.cycle(@colours)) |> Map.new()

    {rows, bottom} =
      Enum.map_reduce(bars, @top + 18, fn {label, parts}, top ->
        sum = parts |> Enum.map(&elem(&1, 1)) |> Enum.sum()
        heading = text(20, top - 6, "#{label}: #{Results.number(sum)} #{plot.unit}", "start", @grey)
        {boxes, _right} = Enum.map_reduce(parts, 20, &box(&1, &2, top, (@width - 40) / sum, colours))
        {[heading, boxes, keys(parts, top + 44, colours)], top + 78 + 17 * div(length(parts) - 1, @key_columns)}
      end)

    document(rows, plot.title, plot.under, bottom)
  end

  defp box({name, value}, left, top, unit_width, colours) do
    width = value * unit_width

    {~s|<rect x="#{fixed(left)}" y="#{top}" width="#{fixed(width)}" height="26" fill="#{colours[name]}"/>\n|,
     left + width}
  end

  defp keys(parts, top, colours) do
    for {{name, value}, place} <- Enum.with_index(parts) do
      x = 20 + rem(place, @key_columns) * div(@width - 40, @key_columns)
      y = top + 17 * div(place, @key_columns)

      [
        ~s|<rect x="#{x}" y="#{y - 9}" width="10" height="10" fill="#{colours[name]}"/>\n|,
        text(x + 15, y, "#{name} #{Results.number(value)}", "start", @grey)
      ]
    end
  end

  defp document(content, title, under, height) do
    IO.iodata_to_binary([
      ~s|<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{height}" font-family="system-ui, sans-serif" font-size="12">\n|,
      ~s|<text x="20" y="20" font-size="15" font-weight="600" fill="#{@grey}">#{escape(title)}</text>\n|,
      text(20, 37, under, "start", @grey),
      content,
      "</svg>\n"
    ])
  end

  defp grid_x(values, x, words) do
    for value <- values do
      at = fixed(x.(value))

      [
        rule(at, @top, at, @height - @bottom),
        text(x.(value), @height - @bottom + 17, words.(value), "middle", @grey)
      ]
    end
  end

  defp grid_y(values, y) do
    for value <- values do
      at = fixed(y.(value))
      [rule(@left, at, @width - @right, at), text(@left - 8, y.(value) + 4, tick(value), "end", @grey)]
    end
  end

  defp rule(x1, y1, x2, y2),
    do: ~s|<line x1="#{x1}" y1="#{y1}" x2="#{x2}" y2="#{y2}" stroke="#{@grey}" stroke-opacity="0.25"/>\n|

  defp line(points, x, y, colour) do
    at = for {px, py} <- points, do: {fixed(x.(px)), fixed(y.(py))}
    path = Enum.map_join(at, " ", fn {x, y} -> "#{x},#{y}" end)

    [
      ~s|<polyline points="#{path}" fill="none" stroke="#{colour}" stroke-width="2"/>\n|,
      for({x, y} <- at, do: ~s|<circle cx="#{x}" cy="#{y}" r="2.8" fill="#{colour}"/>\n|)
    ]
  end

  defp legend(label, row, colour) do
    {x, y} = {@width - @right + 18, @top + 10 + row * 19}

    [
      ~s|<line x1="#{x}" y1="#{y}" x2="#{x + 20}" y2="#{y}" stroke="#{colour}" stroke-width="3"/>\n|,
      text(x + 27, y + 4, label, "start", @grey)
    ]
  end

  defp text(x, y, words, anchor, colour),
    do: ~s|<text x="#{fixed(x)}" y="#{fixed(y)}" text-anchor="#{anchor}" fill="#{colour}">#{escape(words)}</text>\n|

  # One value alone stands in the middle.
  defp scale(_value, {low, high}, {from, to}) when low == high, do: (from + to) / 2

  defp scale(value, {low, high}, {from, to}),
    do: from + (:math.log(value) - :math.log(low)) / (:math.log(high) - :math.log(low)) * (to - from)

  # Out to the next of 1, 2 and 5.
  defp decades({low, high}) do
    steps = for exponent <- -6..12, step <- [1, 2, 5], do: step * :math.pow(10, exponent)
    {steps |> Enum.filter(&(&1 <= low)) |> Enum.max(), steps |> Enum.filter(&(&1 >= high)) |> Enum.min()}
  end

  defp ticks(low, high) do
    steps = if high / low > 500, do: [1], else: [1, 2, 5]

    for exponent <- -6..12,
        step <- steps,
        value = step * :math.pow(10, exponent),
        value >= low,
        value <= high,
        do: value
  end

  @doc "A round number: 5, 10 k, 0.01."
  def tick(value), do: value |> Results.number() |> String.replace(~r/\.0+\b|(?<=\.\d)0\b/, "")

  defp fixed(number), do: :erlang.float_to_binary(number / 1, decimals: 1)

  defp escape(words), do: words |> to_string() |> String.replace("&", "&amp;") |> String.replace("<", "&lt;")
end

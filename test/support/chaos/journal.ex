defmodule Legation.Chaos.Journal do
  @moduledoc """
  Files that outlive whoever writes them: what the operating system has been given survives `kill -9`. Each process of
  `Legation.Chaos.Load` has one of its own, a line an entry, fields with spaces between them. The first line says whose it is. Times are
  microseconds of the machine's monotonic clock, which all processes of it share.

      sender ID NODE ENGINE WAY        who sends to one engine, all its life; numbers from 0
        b FROM TO PROXY T              is about to send these to this proxy; the last one is a call
        k FROM TO                      the queue has taken these (`Legation.cast/3` with `block:`)
        r N OUTCOME PROXY MS           the call has ended: ok, wrong, timeout, refused:REASON, exit:REASON; the proxy of then
        g FROM                         has given it up: the queue took no more, and nobody was called
        e N                            the engine has said so to the sender's pid
        x TEXT                         got what nobody should have sent
        end                            has stopped when told to, behind an answered call

      engine ID NODE ENGINE T          one process; an engine has another one after each kill
        d SENDER FROM TO               got these, one after the other, of the kind and content that they must have
        w SENDER N WHAT                got this, and it is wrong

      watch ID NODE ENGINE             monitors each proxy of an engine
        m REF PROXY                    is about to
        d REF REASON T                 it has fired
        end

      owner ID NODE T                  what `Legation.monitor_peers/1` tells
        up|lost|resumed|down T
        gap N T
        learned|forgotten ENGINE PROXY T

      chaos                            what was done, by the one who did it
        killed NODE T                  a VM, or `NODE/daemon`
        did WHAT T                     anything
        mended T
        end
  """

  @doc "Opens one. The directory is the run's."
  def open(dir, kind, id, header) do
    {:ok, file} = :file.open(Path.join(dir, "#{kind}-#{id}.journal"), [:append, :raw])
    write(file, [Atom.to_string(kind), " ", header])
    file
  end

  def write(file, line), do: :ok = :file.write(file, [line, "\n"])

  @doc "All journals of a directory: `{kind, [words of the header], [[word]]}`. An entry that was cut off by a kill is none."
  def read(dir) do
    for path <- dir |> Path.join("*.journal") |> Path.wildcard() |> Enum.sort(),
        {:ok, journal} <- [parse(File.read!(path))],
        do: journal
  end

  @doc "The same of one file's text."
  def parse(text) do
    # What follows the last newline was not written to its end.
    lines = text |> String.split("\n") |> Enum.drop(-1)

    case lines do
      [] ->
        :empty

      [header | entries] ->
        with [kind | words] <- String.split(header, " "),
             do: {:ok, {kind, words, Enum.map(entries, &String.split(&1, " "))}}
    end
  end

  @doc "Microseconds of the clock that all processes of this machine share."
  def now_us, do: :os.perf_counter(:microsecond)
end

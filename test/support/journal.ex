defmodule Legation.TestJournal do
  @moduledoc """
  For tests that kill: a sender that never stops sending numbered entries, and an engine that writes down what it gets, into a file
  that outlives it. What the operating system has of a file survives `kill -9` of who wrote it.
  """

  defmodule Writer do
    @moduledoc "Writes down each entry, cast or called, and tells its owner after every so many of them."
    use GenServer

    def start_link(opts), do: GenServer.start_link(__MODULE__, Map.new(opts))

    @impl true
    def init(%{path: path} = state) do
      {:ok, file} = :file.open(path, [:append, :raw])
      {:ok, Map.merge(state, %{file: file, written: 0})}
    end

    @impl true
    def handle_cast({:entry, sender, number}, state), do: {:noreply, write(:cast, sender, number, state)}

    @impl true
    def handle_call({:entry, sender, number}, _from, state),
      do: {:reply, {:written, sender, number}, write(:call, sender, number, state)}

    defp write(kind, sender, number, %{every: every} = state) do
      :ok = :file.write(state.file, "#{kind} #{sender} #{number}\n")
      written = state.written + 1
      if rem(written, every) == 0, do: send(state.owner, {:journal, written})
      %{state | written: written}
    end
  end

  @doc """
  Sends for ever, as `sender`: nine casts and a call, again and again. Tells its owner `{:wrong, what}` when a call ends as it must
  not, by its own time-out or with another's answer, and `{:lost, reason}` when it exits as it should.
  """
  def send_for_ever(instance, name, sender, owner) do
    spawn_link(fn -> send_on({:via, Legation, {instance, name}}, sender, 1, owner) end)
    :ok
  end

  defp send_on(name, sender, number, owner) do
    for n <- number..(number + 8), do: GenServer.cast(name, {:entry, sender, n})

    try do
      case GenServer.call(name, {:entry, sender, number + 9}, 25_000) do
        {:written, ^sender, written} when written == number + 9 -> :ok
        {:error, {:legation, reason}} when reason in [:overload, :noproc, :abandoned] -> :ok
        other -> send(owner, {:wrong, other})
      end
    catch
      :exit, {:noproc, _call} -> wait_a_little()
      :exit, {:timeout, _call} -> send(owner, {:wrong, :timeout})
      :exit, {reason, _call} -> send(owner, {:lost, reason})
    end

    send_on(name, sender, number + 10, owner)
  end

  # While there is nobody to send to.
  defp wait_a_little do
    receive do
    after
      5 -> :ok
    end
  end

  @doc "What was written: `[{:cast | :call, sender, number}]`, in order."
  def read(path) do
    for line <- path |> File.read!() |> String.split("\n", trim: true) do
      [kind, sender, number] = String.split(line, " ")
      {String.to_existing_atom(kind), sender, String.to_integer(number)}
    end
  end

  @doc "Starts a writer, publishes it. Called with `TestVM.here/4`."
  def publish_writer(instance, name, path, every) do
    {:ok, pid} = Writer.start_link(path: path, every: every, owner: self())
    :ok = Legation.publish(name, pid, [], instance)
  end

  @doc "Starts a sender. Called with `TestVM.here/4`."
  def start_sender(instance, name, sender), do: send_for_ever(instance, name, sender, self())
end

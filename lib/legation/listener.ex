defmodule Legation.Listener do
  @moduledoc false
  # One address that peers can dial: owns the listening socket, has an acceptor wait on it, and keeps the places of those
  # who have not yet proven who they are (see Admission). Limits are per listener.

  use GenServer

  alias Legation.{Counters, Instance}
  alias Legation.Listener.{Acceptor, Admission}

  @restart_ms 100

  def child_spec({_name, id, _carrier, _opts} = args), do: %{id: id, start: {__MODULE__, :start_link, [args]}}

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @doc "What it listens on, with the port that was bound, and who is in its places."
  def info(pid), do: GenServer.call(pid, :info)

  @impl true
  def init({name, id, carrier, opts}) do
    Process.flag(:trap_exit, true)
    instance = Instance.fetch!(name)
    opts = Keyword.put_new(opts, :send_timeout_ms, Instance.limit(instance, :send_timeout_ms))

    case listen(carrier, opts, instance, id) do
      {:ok, socket, address} ->
        :ets.insert(instance.config, {{:bound, id}, address})

        state = %{
          instance: instance,
          id: id,
          carrier: carrier,
          opts: opts,
          socket: socket,
          address: address,
          acceptor: nil,
          admission: Admission.new(instance.options.limits)
        }

        {:ok, start_acceptor(state)}

      {:error, reason} ->
        {:stop, {:shutdown, {:listen, carrier, reason}}}
    end
  end

  @impl true
  def handle_call({:admit, address}, _from, state) do
    if Admission.admit?(state.admission, address, now_s()) do
      {:reply, :ok, state}
    else
      Counters.add(state.instance.counters, :connections_refused)
      {:reply, :refuse, state}
    end
  end

  def handle_call(:info, _from, state) do
    info = %{
      id: state.id,
      carrier: state.carrier,
      profile: state.opts[:profile] || state.carrier.default_profile(),
      address: state.address
    }

    {:reply, Map.merge(info, Admission.counts(state.admission)), state}
  end

  @impl true
  def handle_cast({:opened, reader, address}, state) do
    Process.monitor(reader)
    Counters.add(state.instance.counters, :connections_accepted)
    {evict, admission} = Admission.opened(state.admission, reader, address)

    if evict do
      Counters.add(state.instance.counters, :connections_evicted)
      send(evict, :evict)
    end

    {:noreply, %{state | admission: admission}}
  end

  @impl true
  def handle_info({:knocked, reader}, state) do
    {verdict, admission} = Admission.knocked(state.admission, reader, now_s())

    if verdict == :refuse do
      Counters.add(state.instance.counters, :handshakes_refused)
      send(reader, :evict)
    end

    {:noreply, %{state | admission: admission}}
  end

  def handle_info({:up, reader}, state),
    do: {:noreply, %{state | admission: Admission.up(state.admission, reader, now_s())}}

  def handle_info({:DOWN, _monitor, :process, reader, _reason}, state),
    do: {:noreply, %{state | admission: Admission.ended(state.admission, reader, now_s())}}

  # The socket was closed under us. A new Listener opens a new one.
  def handle_info({:EXIT, acceptor, {:shutdown, :closed}}, %{acceptor: acceptor} = state),
    do: {:stop, {:shutdown, :closed}, state}

  # It failed, in a carrier of the user's perhaps. The socket is still good.
  def handle_info({:EXIT, acceptor, _reason}, %{acceptor: acceptor} = state) do
    Counters.add(state.instance.counters, :accept_errors)
    Process.send_after(self(), :start_acceptor, @restart_ms)
    {:noreply, %{state | acceptor: nil}}
  end

  def handle_info(:start_acceptor, %{acceptor: nil} = state), do: {:noreply, start_acceptor(state)}
  def handle_info(_stray, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    if state.acceptor, do: Process.exit(state.acceptor, :kill)
    state.carrier.close_listener(state.socket)
  end

  # After a crash peers look for us where we were, not at another free port. If that is taken now, another must do.
  defp listen(carrier, opts, instance, id) do
    with [{_key, address}] <- :ets.lookup(instance.config, {:bound, id}),
         {:ok, socket, address} <- carrier.listen(Keyword.merge(opts, address)) do
      {:ok, socket, address}
    else
      _first_time_or_taken -> carrier.listen(opts)
    end
  end

  defp start_acceptor(state) do
    acceptor = Acceptor.start_link(self(), state.instance.name, state.carrier, state.socket, state.opts)
    %{state | acceptor: acceptor}
  end

  defp now_s, do: System.monotonic_time(:second)
end

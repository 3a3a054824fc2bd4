defmodule Legation.ProxySupervisor do
  @moduledoc false
  # Parent of all proxies: makes them by the hundred, hears of their ends in silence, and takes all with it when it stops.
  # OTP's supervisors would write two reports for each proxy that exits with `:noconnection`, which is how proxies end.
  #
  # A proxy that somebody killed is reported to the Directory, which has a new one take its place.

  use GenServer

  alias Legation.{Directory, Handle, Instance, Native, Proxy}

  def start_link(name), do: GenServer.start_link(__MODULE__, name, name: server(name))

  @doc "Proxies for engines of one session: `[{pid, counts}]` in the order of `engines`. Nothing is waited for."
  @spec start_proxies(atom, map, [binary]) :: [{pid, reference}]
  def start_proxies(name, session, engines), do: GenServer.call(server(name), {:start, session, engines}, :infinity)

  defp server(name), do: Instance.process(name, ProxySupervisor)

  @impl true
  def init(name) do
    Process.flag(:trap_exit, true)
    {:ok, name}
  end

  @impl true
  def handle_call({:start, session, engines}, _from, name) do
    instance = Instance.fetch!(name)

    started =
      for engine <- engines do
        counts = Proxy.new_counts()

        proxy = %Proxy{
          ref: instance.ref,
          parent: self(),
          instance: name,
          name: engine <> "@" <> session.realm,
          engine: engine,
          realm: session.realm,
          tag: session.tag,
          session: session.session,
          peer: session.peer,
          pids: instance.pids,
          counts: counts,
          drops: instance.counters,
          reasons: session.reasons
        }

        pid = Proxy.spawn_link(proxy)
        # In a payload it goes home as the engine.
        Native.session_bind_engine(session.session, Handle.raw(pid), engine)
        {pid, counts}
      end

    {:reply, started, name}
  end

  @impl true
  def handle_info({:EXIT, pid, _reason}, name) do
    Directory.proxy_exited(name, pid)
    {:noreply, name}
  end

  def handle_info(_stray, name), do: {:noreply, name}
end

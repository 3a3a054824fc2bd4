defmodule Legation.FakeDaemon do
  @moduledoc """
  What the library sees of a daemon, without one: a control engine on this very node, which tells the test's process each
  request and answers as it is told to.

      fake = FakeDaemon.start!()                          registered as `legation`; ends with the test
      options = FakeDaemon.options(realm: "alice")        an instance's options whose daemon's node is this one
      FakeDaemon.answer(fake, :peers, [])                 from now on
      FakeDaemon.event(fake, {:peer_up, "bob", info})     to whoever has subscribed

  The test gets `{:asked, request}` and `{:told, request}` (for casts). Only one at a time can be there, so tests that use it are not `async`.
  """

  use GenServer

  alias Legation.Options

  @key <<7::256>>

  def start!(opts \\ []) do
    ExUnit.Callbacks.start_supervised!(%{
      id: __MODULE__,
      start: {__MODULE__, :start_link, [self(), opts]},
      restart: :temporary
    })
  end

  def start_link(test, opts), do: GenServer.start_link(__MODULE__, {test, opts}, name: :legation)

  @doc "The public key that it says it has."
  def key, do: @key

  @doc "An instance's options, as `Legation.Transport.CNode.prepare/1` leaves them, with this node for the daemon's."
  def options(opts) do
    {transport, opts} = Keyword.pop(opts, :transport, [])
    defaults = [name: :"Elixir.Fake#{System.unique_integer([:positive])}", key: "fake.pem", global: :off]
    options = Options.new!([transport: {:c_node, transport}] ++ Keyword.merge(defaults, opts))

    prepared = %{
      options.transport
      | node: node(),
        ip: {127, 0, 0, 1},
        cookie: options.transport.cookie || fn -> :fake_cookie end
    }

    %{options | transport: prepared}
  end

  @doc "The table that outlives an instance's parts, filled as `Legation.Supervisor` does it. It ends with the test, after them."
  def config(options) do
    owner = ExUnit.Callbacks.start_supervised!({Agent, fn -> make_config(options) end}, id: make_ref())
    Agent.get(owner, & &1)
  end

  defp make_config(options) do
    config = :ets.new(:legation_config, [:public, :ordered_set])
    for peer <- options.peers, do: :ets.insert(config, {{:peer, peer.realm}, peer, :connected})

    for {{carrier, opts}, index} <- Enum.with_index(options.listen),
        do: :ets.insert(config, {{:listener, index}, carrier, opts})

    config
  end

  @doc "An instance of these options, with a process of the daemon's and all. For `Legation.TestVM.here/4`, too: linked to who calls it."
  def start_instance(options) do
    Supervisor.start_link(Legation.Transport.CNode.children(options, make_config(options)), strategy: :rest_for_one)
  end

  @doc "The same with a control engine, in a VM that has none."
  def start_instance_and_engine(options) do
    {:ok, _engine} = start_link(self(), [])
    start_instance(options)
  end

  @doc "And with options that are made there, for a VM that is a node."
  def start_instance_there(opts, binary) do
    options = options(opts)
    start_instance_and_engine(put_in(options.transport.binary, binary))
  end

  @doc """
  A program that is started like the daemon: it takes its configuration from its standard input, keeps a copy as
  `config.1`, `config.2` and so on, does what `script` says (bash, with `$directory` and `$number` of its start), and stops as the daemon
  does. As long as it runs it holds the fifo `alive` open, if there is one.
  """
  def program(directory, script \\ ~s(echo "legation ready fake@127.0.0.1 1")) do
    path = Path.join(directory, "legation")

    File.write!(path, """
    #!/usr/bin/env bash
    directory=#{directory}
    number=$(cat "$directory/started" 2>/dev/null || echo 0)
    number=$((number + 1))
    echo $number >"$directory/started"
    if [ -p "$directory/alive" ]; then exec 9>"$directory/alive"; fi
    IFS= read -r -d '' config || exit 3
    printf %s "$*" >"$directory/arguments"
    printf %s "$config" >"$directory/config.$number"
    #{script}
    if IFS= read -r -d '' _nothing; then echo "INFO stopped" >&2; echo asked >"$directory/ended"; else echo eof >"$directory/ended"; fi
    """)

    File.chmod!(path, 0o755)
    path
  end

  def answer(fake, request, answer), do: GenServer.call(fake, {:fake, :answer, request, answer})
  def event(fake, event), do: GenServer.call(fake, {:fake, :event, event})

  @impl true
  def init({test, opts}) do
    answers = %{
      public_key: Options.format_key(@key),
      info: %{realm: "alice", node: node(), version: "0.1.0", creation: 1, nodes: [node()], port: opts[:port] || 1},
      gate: :ok,
      publish: :ok,
      withdraw: :ok,
      peers: [],
      engines: [],
      connections: [],
      listeners: [],
      counters: %{},
      connect: :ok,
      disconnect: :ok,
      remove_listener: :ok,
      drain: {:ok, []}
    }

    {:ok,
     %{
       test: test,
       answers: Map.merge(answers, Map.new(opts)),
       subscribers: %{},
       snapshot: %{peers: %{}, engines: %{}}
     }}
  end

  @impl true
  def handle_call({:fake, :answer, request, answer}, _from, state),
    do: {:reply, :ok, put_in(state.answers[request], answer)}

  def handle_call({:fake, :event, event}, _from, state) do
    for {ref, pid} <- state.subscribers, do: send(pid, {:legation, ref, event})
    {:reply, :ok, state}
  end

  def handle_call(request, {pid, _tag}, state) do
    send(state.test, {:asked, request})

    case {request, state.answers} do
      {:monitor_peers, _answers} ->
        ref = make_ref()
        {:reply, {:ok, ref, Map.get(state.answers, :snapshot, state.snapshot)}, put_in(state.subscribers[ref], pid)}

      {request, answers} ->
        case Map.get(answers, name(request), {:error, :bad_request}) do
          fun when is_function(fun, 1) -> {:reply, fun.(request), state}
          answer -> {:reply, answer, state}
        end
    end
  end

  @impl true
  def handle_cast(request, state) do
    send(state.test, {:told, request})
    {:noreply, state}
  end

  defp name(request) when is_tuple(request), do: elem(request, 0)
  defp name(request), do: request
end

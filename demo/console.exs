# What runs in alice's and in bob's VM beside the application: a prompt without a keyboard. It evaluates what the other end
# of its pipes (demo/vm.exs) sends, one expression at a time in one process, and keeps what Legation tells of peers and
# engines until it is asked for.

defmodule Demo.Console do
  # The pipes are descriptors 3 and 4: what the VM prints is no answer.
  def run do
    port = Port.open({:fd, 3, 4}, [:binary, :eof, packet: 4])
    {:ok, ref, %{peers: peers, engines: engines}} = Legation.monitor_peers()

    before =
      for({realm, info} <- peers, do: {:peer_up, realm, info}) ++
        for {name, info} <- engines, do: {:engine_learned, name, info}

    main = self()
    shell = spawn_link(fn -> shell(main, []) end)
    answer(port, :ready)
    serve(%{port: port, ref: ref, shell: shell, events: before, awaited: nil})
  end

  defp serve(%{port: port, ref: ref} = state) do
    receive do
      {^port, {:data, packet}} ->
        case :erlang.binary_to_term(packet) do
          {:eval, code} ->
            send(state.shell, {:eval, code})
            serve(state)

          {:await, kind, name} ->
            serve(look(%{state | awaited: {kind, name}}))

          :stop ->
            System.stop(0)
            serve(state)
        end

      {:evaluated, result} ->
        answer(port, result)
        serve(state)

      {:legation, ^ref, event} ->
        serve(look(%{state | events: state.events ++ [event]}))

      # Whoever started us is gone.
      {^port, :eof} ->
        System.halt(1)
    end
  end

  # An event is given out once.
  defp look(%{awaited: nil} = state), do: state

  defp look(%{awaited: {kind, name}} = state) do
    case Enum.split_while(state.events, &(not match?({^kind, ^name, _info}, &1))) do
      {_events, []} ->
        state

      {earlier, [{_kind, _name, info} | later]} ->
        answer(state.port, {:event, info})
        %{state | events: earlier ++ later, awaited: nil}
    end
  end

  # Nothing but this ever gets into its mailbox, so that a message from elsewhere would be seen.
  defp shell(main, binding) do
    receive do
      {:eval, code} ->
        {result, binding} = evaluate(code, binding)
        send(main, {:evaluated, result})
        shell(main, binding)
    end
  end

  defp evaluate(code, binding) do
    {value, binding} = Code.eval_string(code, binding)
    {{:value, value}, binding}
  catch
    :exit, reason -> {{:exit, reason, "** (exit) " <> Exception.format_exit(reason)}, binding}
    kind, reason -> {{:crash, Exception.format(kind, reason, __STACKTRACE__)}, binding}
  end

  defp answer(port, term), do: Port.command(port, :erlang.term_to_binary(term))
end

# So that the files of the demonstration have short names.
File.cd!(System.fetch_env!("DEMO_DIR"))
Demo.Console.run()

defmodule Legation.Chaos.Checker do
  @moduledoc """
  Holds the journals of a run (`Legation.Chaos.Journal`) against each other. Knows nothing of Legation but what it promises:

    * `:wrong` - something was delivered that nobody had sent to that engine, or with another content or kind; a call was answered by another's answer
    * `:twice` - delivered again, by whatever session or process of the engine
    * `:order` - a sender's messages came to an engine in another order than they were sent in
    * `:lost` - a message is missing, although a call behind it, to the same proxy, was answered; or a call was answered that never arrived
    * `:untold` - a session ended with nobody killed, and more accepted messages are missing than its owner was told (`gap`)
    * `:call` - a call has not ended, or in a way in which none may
    * `:monitor` - a monitor has not fired, or twice
    * `:stray` - a process got what nobody should have sent it
    * `:journal` - a process has stopped that nobody has killed

  A proxy belongs to one session. So a call that was answered through it says that this session was alive, whatever links it had until then, and that all
  that went before it through the same proxy has to be there.
  """

  # How a call may end: the peer's system or session is gone, or its engine; or there was no room.
  @exits ~w(exit::noproc exit::noconnection exit::nodedown exit::killed exit::shutdown)
  @refusals ~w(refused::overload refused::noproc refused::abandoned)

  @doc "What does not hold, `[{name, text}]`, and figures."
  def check(journals) do
    by_kind = Enum.group_by(journals, &elem(&1, 0), &Tuple.delete_at(&1, 0))

    senders =
      for {[id, node, target, way], entries} <- by_kind["sender"] || [],
          into: %{},
          do: {id, sender(node, target, way, entries)}

    {deliveries, wrong} = deliveries(by_kind["engine"] || [])
    kills = for {_words, entries} <- by_kind["chaos"] || [], ["killed", who, t] <- entries, do: {who, int(t)}
    closed? = Enum.any?(by_kind["chaos"] || [], fn {_words, entries} -> ["end"] in entries end)

    senders =
      Map.new(senders, fn {id, sender} ->
        runs = Map.get(deliveries, id, [])
        {id, Map.merge(sender, %{runs: runs, missing: missing(sender, Enum.sort(runs))})}
      end)

    watches = for {[id, node, _target], entries} <- by_kind["watch"] || [], do: {id, node, entries}

    violations =
      wrong ++
        unknown(deliveries, senders) ++
        Enum.flat_map(senders, fn {id, sender} -> of_sender(id, sender, kills, closed?) end) ++
        Enum.flat_map(watches, &of_watch(&1, kills, closed?)) ++
        untold(by_kind["owner"] || [], senders, kills)

    %{violations: violations, figures: figures(senders, watches, by_kind)}
  end

  ## Reading

  # bursts: {from, to, proxy, t, accepted, outcome, proxy after}, in order. accepted: the last number that the queue has taken.
  defp sender(node, target, way, entries) do
    start = %{node: node, target: target, way: way, bursts: [], told: [], strays: [], ended?: false, slowest_ms: 0}

    sender =
      Enum.reduce(entries, start, fn
        ["b", from, to, proxy, t], sender ->
          %{sender | bursts: [{int(from), int(to), proxy, int(t), nil, nil, nil} | sender.bursts]}

        ["k", _from, to], sender ->
          update_last(sender, 4, int(to))

        ["r", _number, outcome, proxy, ms], sender ->
          ended(sender, outcome, proxy, int(ms))

        ["g", _from], sender ->
          ended(sender, "given_up", "-", 0)

        ["e", number], sender ->
          %{sender | told: [int(number) | sender.told]}

        ["end"], sender ->
          %{sender | ended?: true}

        words, sender ->
          %{sender | strays: [Enum.join(words, " ") | sender.strays]}
      end)

    %{sender | bursts: Enum.reverse(sender.bursts), told: Enum.reverse(sender.told)}
  end

  defp ended(sender, outcome, proxy, ms) do
    sender = sender |> update_last(5, outcome) |> update_last(6, proxy)
    %{sender | slowest_ms: max(sender.slowest_ms, ms)}
  end

  defp update_last(%{bursts: [burst | bursts]} = sender, at, value),
    do: %{sender | bursts: [put_elem(burst, at, value) | bursts]}

  defp update_last(sender, _at, _value), do: %{sender | strays: ["an end of nothing" | sender.strays]}

  # sender => [{from, to, engine's name}], in the order in which they came: each process of an engine begins when the one before it has ended.
  defp deliveries(engines) do
    sorted = Enum.sort_by(engines, fn {[_id, _node, _name, t], _entries} -> int(t) end)

    {runs, wrong} =
      Enum.reduce(sorted, {%{}, []}, fn {[id, _node, name, _t], entries}, acc ->
        Enum.reduce(entries, acc, fn
          ["d", sender, from, to], {runs, wrong} ->
            run = {int(from), int(to), name}
            {Map.update(runs, sender, [run], &[run | &1]), wrong}

          words, {runs, wrong} ->
            {runs, [{:wrong, "#{id} got #{Enum.join(words, " ")}"} | wrong]}
        end)
      end)

    {Map.new(runs, fn {sender, runs} -> {sender, Enum.reverse(runs)} end), wrong}
  end

  defp unknown(deliveries, senders),
    do:
      for(
        {id, _runs} <- deliveries,
        not is_map_key(senders, id),
        do: {:wrong, "#{id} has sent nothing, and something came from it"}
      )

  ## Of one sender

  defp of_sender(id, sender, kills, closed?) do
    %{runs: runs, bursts: bursts} = sender
    sorted = Enum.sort(runs)
    last = bursts |> List.last({nil, -1}) |> elem(1)
    [engine | _realm] = String.split(sender.target, "@")

    astray = for {from, to, name} <- runs, name != engine, do: {:wrong, "#{id}: #{from}..#{to} came to #{name}"}

    unsent =
      for {_from, to, _name} <- runs,
          to > last,
          do: {:wrong, "#{id}: #{to} was delivered, and the last one sent is #{last}"}

    twice = for {{_, to, _}, {from, _, _}} <- pairs(sorted), from <= to, do: {:twice, "#{id}: #{from}..#{to}"}

    order =
      for {{_, to, _}, {from, _, _}} <- pairs(runs),
          from <= to,
          twice == [],
          do: {:order, "#{id}: #{from} came after #{to}"}

    strays = for text <- sender.strays, do: {:stray, "#{id}: #{text}"}

    astray ++
      unsent ++ twice ++ order ++ strays ++ lost(id, sender) ++ calls(id, sender, kills, closed?) ++ told(id, sender)
  end

  defp pairs(list), do: Enum.zip(list, Enum.drop(list, 1))

  # From the last burst to the first: which proxies a call has been answered through since.
  defp lost(id, %{missing: missing} = sender) do
    {violations, _answered} =
      sender.bursts
      |> Enum.reverse()
      |> Enum.reduce({[], MapSet.new()}, fn burst, {violations, answered} ->
        {_from, to, proxy, _t, _accepted, outcome, _after} = burst
        through? = through?(burst, sender.way)
        answered = if outcome == "ok" and through?, do: MapSet.put(answered, proxy), else: answered
        gone = Map.get(missing, to, [])

        cond do
          gone == [] ->
            {violations, answered}

          through? and proxy in answered ->
            {[{:lost, "#{id}: #{words(gone)}, through #{proxy}"} | violations], answered}

          outcome == "ok" and to in gone ->
            {[{:lost, "#{id}: #{to} was answered and never came"} | violations], answered}

          true ->
            {violations, answered}
        end
      end)

    violations
  end

  # Who sends by name may have met another proxy in between; whoever sends by pid has not.
  defp through?({_from, _to, proxy, _t, _accepted, _outcome, now}, way), do: way in ["pid", "global"] or now == proxy

  defp words(numbers), do: numbers |> Enum.map_join(" ", &Integer.to_string/1)

  # The last number of a burst => those of it that are in no run. Both are in order.
  defp missing(%{bursts: bursts}, sorted) do
    {missing, _runs} =
      Enum.reduce(bursts, {%{}, sorted}, fn {from, to, _, _, _, _, _}, {missing, runs} ->
        runs = Enum.drop_while(runs, fn {_first, last, _name} -> last < from end)

        case runs do
          [{first, last, _name} | _more] when first <= from and last >= to -> {missing, runs}
          _holes -> {put_missing(missing, from, to, runs), runs}
        end
      end)

    missing
  end

  defp put_missing(missing, from, to, runs) do
    here = Enum.take_while(runs, fn {first, _last, _name} -> first <= to end)

    case for(n <- from..to, not Enum.any?(here, fn {first, last, _} -> n in first..last end), do: n) do
      [] -> missing
      gone -> Map.put(missing, to, gone)
    end
  end

  defp calls(id, sender, kills, closed?) do
    killed? = Enum.any?(kills, fn {who, _t} -> who == sender.node end)

    odd =
      for {_from, to, _proxy, _t, _accepted, outcome, _now} <- sender.bursts,
          outcome not in ["ok", "timeout", "given_up", nil] and outcome not in @exits and outcome not in @refusals,
          do: {if(outcome == "wrong", do: :wrong, else: :call), "#{id}: the call #{to} has ended #{outcome}"}

    # The last one of who was killed.
    open =
      for {{_, to, _, _, _, nil, _}, _next} <- pairs(sender.bursts),
          do: {:call, "#{id}: the call #{to} has never ended"}

    unfinished =
      cond do
        sender.ended? and match?({_, _, _, _, _, nil, _}, List.last(sender.bursts)) ->
          [{:call, "#{id}: its last call has never ended"}]

        sender.ended? or killed? or not closed? ->
          []

        true ->
          [{:journal, "#{id} has never stopped"}]
      end

    odd ++ open ++ unfinished
  end

  # What the engine told the caller's pid: once, in order, of calls that it had; and of each that was answered and is followed by another answer through
  # the same proxy.
  defp told(id, sender) do
    pairs = pairs(sender.told)

    again =
      for {one, other} <- pairs,
          other <= one,
          do: {if(one == other, do: :twice, else: :order), "#{id}: told #{other} after #{one}"}

    calls = for {_, to, _, _, _, outcome, _} <- sender.bursts, outcome != "given_up", into: MapSet.new(), do: to

    never =
      for number <- sender.told,
          number not in calls or number in Map.get(sender.missing, number, []),
          do: {:wrong, "#{id}: told #{number}, which it has not called"}

    told = MapSet.new(sender.told)

    {missing, _answered} =
      sender.bursts
      |> Enum.reverse()
      |> Enum.reduce({[], MapSet.new()}, fn {_, to, proxy, _, _, outcome, _} = burst, {missing, answered} ->
        cond do
          outcome != "ok" or not through?(burst, sender.way) -> {missing, answered}
          proxy in answered and to not in told -> {[{:lost, "#{id}: was not told #{to}"} | missing], answered}
          true -> {missing, MapSet.put(answered, proxy)}
        end
      end)

    again ++ never ++ missing
  end

  ## Monitors

  defp of_watch({id, node, entries}, kills, closed?) do
    killed? = Enum.any?(kills, fn {who, _t} -> who == node end)
    begun = for ["m", ref, _proxy] <- entries, do: ref
    fired = for ["d", ref, _reason, _t] <- entries, do: ref
    strays = for ["x" | words] <- entries, do: {:stray, "#{id}: #{Enum.join(words, " ")}"}
    twice = for ref <- Enum.uniq(fired -- Enum.uniq(fired)), do: {:monitor, "#{id}: #{ref} has fired twice"}
    of_nothing = for ref <- Enum.uniq(fired) -- begun, do: {:monitor, "#{id}: #{ref} has fired and was none"}
    open = begun -- fired
    # Each is looked at before the next: only the last may be open, and only where its watcher was killed.
    last = List.last(begun)
    ended? = ["end"] in entries

    silent =
      for ref <- open,
          ref != last or ended? or (closed? and not killed?),
          do: {:monitor, "#{id}: #{ref} has never fired"}

    strays ++ twice ++ of_nothing ++ silent
  end

  ## What sessions that ended have lost

  defp untold(owners, senders, kills) do
    for {[id, node, _t], entries} <- owners,
        session <- sessions(entries),
        lost = lost_in(session, node, senders, kills),
        lost > session.gap,
        do:
          {:untold,
           "#{id}: of the session that ended at #{session.down}, #{lost} are missing, and its owner was told of #{session.gap}"}
  end

  # Those that have ended: which proxies were theirs.
  defp sessions(entries) do
    none = %{up: nil, proxies: MapSet.new(), gap: 0, down: nil}

    {ended, _open} =
      Enum.reduce(entries, {[], none}, fn
        ["up", t], {ended, _session} ->
          {ended, %{none | up: int(t)}}

        ["learned", _name, proxy, _t], {ended, session} ->
          {ended, %{session | proxies: MapSet.put(session.proxies, proxy)}}

        ["gap", n, _t], {ended, session} ->
          {ended, %{session | gap: session.gap + int(n)}}

        ["down", t], {ended, %{up: up} = session} when up != nil ->
          {[%{session | down: int(t)} | ended], none}

        _other, acc ->
          acc
      end)

    Enum.reverse(ended)
  end

  defp lost_in(session, node, senders, kills) do
    Enum.sum(
      for {_id, %{node: ^node, way: "accepted", missing: missing} = sender} <- senders do
        Enum.sum(
          for {_from, to, proxy, t, accepted, _outcome, _now} = burst <- sender.bursts,
              accepted != nil and proxy in session.proxies and is_map_key(missing, to),
              # What was not signed has gone into the next session, and is behind the next answered call. A kill until then takes mailboxes along.
              until = answered_after(t, sender.bursts),
              until != nil and not Enum.any?(kills, fn {_who, at} -> at >= session.up and at <= until end),
              do: Enum.count(missing[elem(burst, 1)], &(&1 <= accepted))
        )
      end
    )
  end

  # When the burst after the next one that was answered began.
  defp answered_after(t, bursts) do
    with [_answered, {_, _, _, next, _, _, _} | _] <-
           Enum.drop_while(bursts, fn burst -> elem(burst, 3) <= t or elem(burst, 5) != "ok" end),
         do: next,
         else: (_none -> nil)
  end

  ## Figures

  defp figures(senders, watches, by_kind) do
    bursts = for {_id, sender} <- senders, burst <- sender.bursts, do: burst
    outcomes = Enum.frequencies_by(bursts, &elem(&1, 5))
    owners = for {_words, entries} <- by_kind["owner"] || [], entry <- entries, do: hd(entry)
    events = Enum.frequencies(owners)
    sent = Enum.sum(for {from, to, _, _, _, _, _} <- bursts, do: to - from + 1)
    delivered = Enum.sum(for {_id, sender} <- senders, {from, to, _name} <- sender.runs, do: to - from + 1)
    gaps = for {_words, entries} <- by_kind["owner"] || [], ["gap", n, _t] <- entries, do: int(n)

    %{
      sent: sent,
      delivered: delivered,
      calls: length(bursts),
      answered: Map.get(outcomes, "ok", 0),
      outcomes: outcomes,
      slowest_call_ms: Enum.max(for({_id, sender} <- senders, do: sender.slowest_ms), fn -> 0 end),
      told: Enum.sum(for {_id, sender} <- senders, do: length(sender.told)),
      fired: Enum.count(for {_id, _node, entries} <- watches, ["d" | _] <- entries, do: 1),
      pairs: map_size(senders),
      sessions: Map.get(events, "up", 0),
      lost: Map.get(events, "lost", 0),
      resumed: Map.get(events, "resumed", 0),
      down: Map.get(events, "down", 0),
      gap: Enum.sum(gaps)
    }
  end

  defp int(text), do: String.to_integer(text)
end

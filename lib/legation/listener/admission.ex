defmodule Legation.Listener.Admission do
  @moduledoc false
  # Who may take up a place while it has not proven who it is. Pure; the Listener does what it says.
  #
  # Before the knock a place costs us next to nothing, so there are many, and when they are full a random one is taken
  # back: whoever fills them all mostly evicts itself. After the knock it costs a key exchange: few places, and the
  # newcomer is turned away, unless its address had a session within the hour, for which as many places again are kept.
  # An address that fails too often within a second is turned away for the rest of that second.

  @enforce_keys [:pending_max, :handshakes_max, :failures_per_s]
  defstruct [
    :pending_max,
    :handshakes_max,
    :failures_per_s,
    # pending: index => pid, with the indexes 0..size-1 in use, so that a random one is found at once.
    links: %{},
    pending: %{},
    handshakes: 0,
    second: 0,
    failures: %{},
    friends: %{}
  ]

  # Addresses that are remembered. Beyond these an old friend is a stranger, no more.
  @friends_max 1_024
  @friend_s 3_600
  # Addresses that can fail within one second and be told apart. Beyond these nobody is turned away for it.
  @failing_max 65_536

  def new(limits) do
    %__MODULE__{
      pending_max: limits[:pending_connections_max],
      handshakes_max: limits[:handshakes_max],
      failures_per_s: limits[:failed_handshakes_per_s]
    }
  end

  @doc "May this address have a connection now?"
  def admit?(admission, address, now_s) do
    admission.second != now_s or Map.get(admission.failures, address, 0) < admission.failures_per_s
  end

  @doc "It has one. `evict` is the pid that must go for it, or nil."
  def opened(admission, pid, address) do
    {evict, admission} =
      if map_size(admission.pending) >= admission.pending_max, do: evict(admission), else: {nil, admission}

    index = map_size(admission.pending)

    {evict,
     %{
       admission
       | pending: Map.put(admission.pending, index, pid),
         links: Map.put(admission.links, pid, {:pending, index, address})
     }}
  end

  @doc "Its knock was accepted, or its first bytes were good. `:refuse` when the places for handshakes are taken."
  def knocked(admission, pid, now_s) do
    case admission.links do
      %{^pid => {:pending, index, address}} ->
        admission = free(admission, index)
        max = if friend?(admission, address, now_s), do: 2 * admission.handshakes_max, else: admission.handshakes_max

        if admission.handshakes < max do
          links = Map.put(admission.links, pid, {:handshake, address})
          {:ok, %{admission | links: links, handshakes: admission.handshakes + 1}}
        else
          {:refuse, %{admission | links: Map.delete(admission.links, pid)}}
        end

      _gone ->
        {:ok, admission}
    end
  end

  @doc "Its session is up: it takes no place any more."
  def up(admission, pid, now_s) do
    case Map.pop(admission.links, pid) do
      {nil, _links} -> admission
      {link, links} -> %{admission | links: links} |> leave(link) |> befriend(address(link), now_s)
    end
  end

  @doc "It has ended before its session was up."
  def ended(admission, pid, now_s) do
    case Map.pop(admission.links, pid) do
      {nil, _links} -> admission
      {{:handshake, address} = link, links} -> %{admission | links: links} |> leave(link) |> failed(address, now_s)
      {link, links} -> leave(%{admission | links: links}, link)
    end
  end

  def counts(admission), do: %{pending: map_size(admission.pending), handshakes: admission.handshakes}

  defp evict(admission) do
    index = :rand.uniform(map_size(admission.pending)) - 1
    pid = Map.fetch!(admission.pending, index)
    {pid, free(%{admission | links: Map.delete(admission.links, pid)}, index)}
  end

  # The last takes the place that becomes free.
  defp free(%{pending: pending, links: links} = admission, index) do
    last = map_size(pending) - 1
    {moved, pending} = Map.pop!(pending, last)

    if last == index do
      %{admission | pending: pending}
    else
      {:pending, ^last, address} = Map.fetch!(links, moved)
      %{admission | pending: Map.put(pending, index, moved), links: Map.put(links, moved, {:pending, index, address})}
    end
  end

  defp leave(admission, {:pending, index, _address}), do: free(admission, index)
  defp leave(admission, {:handshake, _address}), do: %{admission | handshakes: admission.handshakes - 1}

  defp address({:pending, _index, address}), do: address
  defp address({:handshake, address}), do: address

  defp failed(%{second: second} = admission, address, now_s) when second != now_s,
    do: failed(%{admission | second: now_s, failures: %{}}, address, now_s)

  defp failed(%{failures: failures} = admission, address, _now_s) do
    if is_map_key(failures, address) or map_size(failures) < @failing_max,
      do: %{admission | failures: Map.update(failures, address, 1, &(&1 + 1))},
      else: admission
  end

  defp friend?(admission, address, now_s) do
    case admission.friends do
      %{^address => seen_s} -> now_s - seen_s < @friend_s
      _stranger -> false
    end
  end

  defp befriend(%{friends: friends} = admission, address, now_s) do
    friends =
      if is_map_key(friends, address) or map_size(friends) < @friends_max,
        do: friends,
        else: Map.reject(friends, fn {_address, seen_s} -> now_s - seen_s >= @friend_s end)

    if is_map_key(friends, address) or map_size(friends) < @friends_max,
      do: %{admission | friends: Map.put(friends, address, now_s)},
      else: %{admission | friends: friends}
  end
end

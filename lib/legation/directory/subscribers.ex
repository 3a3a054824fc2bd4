defmodule Legation.Directory.Subscribers do
  @moduledoc false
  # Who wants to hear of peers and engines. The reference that a subscriber gets is our monitor of it, so it goes when
  # the subscriber does.

  def new, do: %{}

  def add(subscribers, pid) do
    ref = Process.monitor(pid)
    {ref, Map.put(subscribers, ref, pid)}
  end

  def remove(subscribers, ref) do
    if is_map_key(subscribers, ref), do: Process.demonitor(ref, [:flush])
    Map.delete(subscribers, ref)
  end

  def tell(subscribers, event) do
    for {ref, pid} <- subscribers, do: send(pid, {:legation, ref, event})
  end
end

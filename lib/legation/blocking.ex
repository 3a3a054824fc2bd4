defmodule Legation.Blocking do
  @moduledoc false
  # `block:` of Legation.call/4 and Legation.cast/3: who would rather wait than be refused for want of room; and `received:` of
  # the latter, for who wants to know that a message has arrived. Everything else never waits (a process that stands for a
  # foreign engine must not), so it is the caller that does, here.

  alias Legation.{Instance, Providers}

  # A refusal although there is room is the peer's, or others were faster. So often in a row is enough.
  @in_vain_max 3

  @doc "The options of both: `{block | nil, instance}`."
  def options!(opts) do
    opts = Keyword.validate!(opts, [:block, instance: Legation])
    time!(:block, opts[:block])
    {opts[:block], opts[:instance]}
  end

  def time!(name, time) do
    unless time in [nil, :infinity] or (is_integer(time) and time >= 0) do
      raise ArgumentError, "expected :#{name} to be milliseconds or :infinity, got: #{inspect(time)}"
    end
  end

  @doc "A cast, and when the engine's mailbox has it `:ok`; never an exit."
  def received(%Instance{} = instance, name, message, timeout) do
    case Providers.locate(instance, name) do
      nil ->
        {:error, :noproc}

      {:own, pid} ->
        send(pid, {:"$gen_cast", message})
        :ok

      {:foreign, pid} ->
        with {:ok, answer} <- :gen.call(pid, :"$legation_cast", message, timeout), do: answer
    end
  catch
    # What ends a call: the time-out, or the reason for which the engine, or the session, has ended.
    :exit, {:nodedown, _node} -> {:error, :noconnection}
    :exit, reason -> {:error, reason}
  end

  @doc "`call.()`, again as long as it is refused for want of room and there is time."
  def call(instance, name, request, block, call) do
    again(instance, name, request, deadline(block), 0, fn ->
      with {:error, {:legation, :overload}} <- call.(), do: :refused
    end)
  end

  @doc "The same of a cast."
  def cast(%Instance{} = instance, name, message, block) do
    again(instance, name, message, deadline(block), 0, fn ->
      case Providers.locate(instance, name) do
        nil -> {:error, :noproc}
        {:foreign, pid} -> pushed(instance.transport.push(instance, pid, {:"$gen_cast", message}))
        {:own, pid} -> with _message <- send(pid, {:"$gen_cast", message}), do: :ok
      end
    end)
  end

  defp pushed(:ok), do: :ok
  defp pushed({:error, :overload}), do: :refused
  defp pushed({:error, :ended}), do: {:error, :noproc}
  defp pushed({:error, reason}), do: {:error, {:legation, reason}}

  defp again(instance, name, message, deadline, in_vain, try) do
    with :refused <- try.() do
      asked_ms = now_ms()

      with true <- in_vain < @in_vain_max,
           {:foreign, pid} <- Providers.locate(instance, name),
           full_name = full_name(instance, name, pid),
           :ok <- instance.transport.wait_room(instance, full_name, :erlang.external_size(message), left(deadline)) do
        again(instance, name, message, deadline, if(now_ms() > asked_ms, do: 0, else: in_vain + 1), try)
      else
        # The peer, or time, has had it.
        _over -> {:error, {:legation, :overload}}
      end
    end
  end

  # It may have been asked for by a version, or of any realm.
  defp full_name(%{foreign: foreign}, name, pid) do
    if :ets.member(foreign, name),
      do: name,
      else: foreign |> :ets.match({:"$1", pid, :_, :_, :_, :_}) |> List.first() |> List.wrap() |> List.first()
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(block), do: now_ms() + block

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - now_ms(), 0)

  defp now_ms, do: System.monotonic_time(:millisecond)
end

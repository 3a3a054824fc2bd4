defmodule Legation.Directory.Ends do
  @moduledoc false
  # Peers hear of the end of an engine of ours (FORGET). Until they do their calls to it, their monitors and its proxy there go
  # on; so one that the keyholder does not sign is asked for again, until it is signed or no session is left that knew the engine.
  #
  # In the Directory's state: `unsigned`, `{engine, reason, serial, session tags}`, the one to be asked for next first; `asking`: it will
  # be, or is just now.

  alias Legation.Directory.Announcement
  alias Legation.Telemetry

  @again_first_ms 1_000
  @again_last_ms 30_000

  @doc "The engine is gone, for these sessions. `announce` is the Directory's."
  # Nobody to tell: nothing to sign.
  def tell(_engine, _reason, _serial, [], state, _announce), do: state

  def tell(engine, reason, serial, sessions, state, announce) do
    ended = {engine, reason, serial, Enum.map(sessions, & &1.tag)}

    case sign(ended, state) do
      {:ok, signed} ->
        announce(ended, signed, state, announce)
        state

      {:error, error} ->
        log(ended, error, state)
        state = %{state | unsigned: state.unsigned ++ [ended]}
        if state.asking, do: state, else: ask_in(@again_first_ms, state)
    end
  end

  @doc "Before an engine takes the name of one that has ended: a FORGET that the next LEARN has overtaken is nothing."
  # What was told on the way stays told, whether the last of them gets signed or not.
  def settle(engine, state, announce) do
    case Enum.find(state.unsigned, &(elem(&1, 0) == engine)) do
      nil ->
        {:ok, state}

      ended ->
        settled = %{state | unsigned: List.delete(state.unsigned, ended)}

        case sign_if_known(ended, state) do
          {:ok, signed} ->
            announce(ended, signed, state, announce)
            settle(engine, settled, announce)

          :unknown ->
            settle(engine, settled, announce)

          {:error, error} ->
            {{:error, error}, state}
        end
    end
  end

  @doc "It is time to ask again, which may take the keyholder a while: the answer comes to `handle_answer/5`."
  def ask_again(_wait_ms, %{unsigned: []} = state), do: %{state | asking: false}

  def ask_again(wait_ms, %{unsigned: [ended | others]} = state) do
    if known?(ended, state) do
      directory = self()
      # Of the state no more goes there than is needed.
      known = Map.take(state, [:instance])
      spawn_link(fn -> send(directory, {:end_signed, ended, sign(ended, known), wait_ms}) end)
      state
    else
      ask_again(wait_ms, %{state | unsigned: others})
    end
  end

  def handle_answer(ended, answer, wait_ms, state, announce) do
    others = List.delete(state.unsigned, ended)

    case answer do
      # Signed meanwhile, for the next of its name.
      _any when others == state.unsigned ->
        ask_again(wait_ms, state)

      {:ok, signed} ->
        announce(ended, signed, state, announce)
        ask_again(@again_first_ms, %{state | unsigned: others})

      {:error, error} ->
        log(ended, error, state)
        ask_in(min(2 * wait_ms, @again_last_ms), %{state | unsigned: others ++ [ended]})
    end
  end

  defp sign_if_known(ended, state), do: if(known?(ended, state), do: sign(ended, state), else: :unknown)

  defp sign({engine, reason, serial, _tags}, state), do: Announcement.forget(state.instance, engine, serial, reason)

  defp known?({_engine, _reason, _serial, tags}, state), do: Enum.any?(tags, &is_map_key(state.sessions, &1))

  defp announce({_engine, _reason, _serial, tags}, signed, state, announce) do
    for tag <- tags, session = state.sessions[tag], do: announce.(session, :forget, signed)
  end

  defp ask_in(wait_ms, state) do
    Process.send_after(self(), {:sign_ends, wait_ms}, wait_ms)
    %{state | asking: true}
  end

  defp log({engine, _reason, _serial, _tags}, error, state),
    do: Telemetry.log(:error, {:forget, state.name}, "the end of #{engine} could not be signed: #{inspect(error)}")
end

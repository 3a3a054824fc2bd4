defmodule Legation.CNode.Control do
  @moduledoc false
  # Questions to the daemon's control engine, the process `legation` of its node. What can't be asked is an error of the kind
  # `{:daemon, why}`; a daemon that isn't there must not be an exit of whoever uses the API.

  alias Legation.Instance

  # It answers at once, but for what a user's keyholder signs, which has 5 s.
  @timeout_ms 15_000

  @type node_or_instance :: node | Instance.t()

  @spec call(node_or_instance, term, timeout) :: {:ok, term} | {:error, {:daemon, atom}}
  def call(node_or_instance, request, timeout \\ @timeout_ms) do
    {:ok, GenServer.call(server(node_or_instance), request, timeout)}
  catch
    :exit, {:timeout, _call} -> {:error, {:daemon, :timeout}}
    :exit, _down -> {:error, {:daemon, :down}}
  end

  @doc "For requests whose answer is `:ok`, `{:ok, value}` or `{:error, reason}`: that, or why it could not be asked."
  @spec request(node_or_instance, term, timeout) :: :ok | {:ok, term} | {:error, term}
  def request(node_or_instance, request, timeout \\ @timeout_ms) do
    case call(node_or_instance, request, timeout) do
      {:ok, answer} when answer == :ok or elem(answer, 0) in [:ok, :error] -> answer
      {:ok, other} -> {:error, {:daemon, {:answer, other}}}
      {:error, reason} -> {:error, reason}
    end
  end

  @spec cast(node_or_instance, term) :: :ok
  def cast(node_or_instance, request), do: GenServer.cast(server(node_or_instance), request)

  @doc "What is called, and monitored."
  def server(%Instance{options: %{transport: %{node: node}}}), do: {:legation, node}
  def server(node) when is_atom(node), do: {:legation, node}
end

defmodule Bob.Application do
  @moduledoc "The only place in this application that knows Legation."

  use Application

  @impl true
  def start(_type, _args) do
    children = [Bob.Greeter, {Legation, Application.fetch_env!(:bob, Legation)}]

    with {:ok, supervisor} <- Supervisor.start_link(children, strategy: :one_for_one, name: Bob.Supervisor) do
      :ok = Legation.publish("greeter", Bob.Greeter)
      {:ok, supervisor}
    end
  end
end

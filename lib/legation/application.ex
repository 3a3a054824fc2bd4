defmodule Legation.Application do
  @moduledoc false
  # Only the table of logged causes lives here; instances are started by the user's own supervisors.

  use Application

  @impl true
  def start(_type, _args) do
    Legation.Telemetry.start()
    Supervisor.start_link([], strategy: :one_for_one)
  end
end

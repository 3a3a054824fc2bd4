defmodule Alice.Application do
  @moduledoc "The only place in this application that knows Legation."

  use Application

  @impl true
  def start(_type, _args) do
    children = [
      Alice.Counter,
      Alice.Clerk,
      Alice.Desk,
      Alice.Door,
      Alice.Diary,
      Alice.Guestbook,
      Alice.Pager,
      Alice.Ledger,
      {Legation, Application.fetch_env!(:alice, Legation)}
    ]

    with {:ok, supervisor} <- Supervisor.start_link(children, strategy: :one_for_one, name: Alice.Supervisor) do
      :ok = Legation.publish("counter", Alice.Counter)
      :ok = Legation.publish("desk", Alice.Desk)
      :ok = Legation.publish("door", Alice.Door)
      :ok = Legation.publish("guestbook", Alice.Guestbook)
      :ok = Legation.publish("pager", Alice.Pager)
      :ok = Legation.publish("ledger", Alice.Ledger)
      # Published, but no peer's `export:` has it.
      :ok = Legation.publish("diary", Alice.Diary)
      {:ok, supervisor}
    end
  end
end

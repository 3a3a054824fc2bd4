# A project as a user has it: Legation is a dependency. `./check` says what is tried here.
defmodule Consumer.MixProject do
  use Mix.Project

  def project do
    [
      app: :consumer,
      version: "0.1.0",
      elixir: "~> 1.14",
      deps: [{:legation, path: "../.."}],
      # A name that the tests of Legation itself don't take for one of theirs.
      test_pattern: "*_scenario.exs"
    ]
  end

  def application, do: [extra_applications: [:logger]]
end

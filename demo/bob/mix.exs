defmodule Bob.MixProject do
  use Mix.Project

  def project do
    [
      app: :bob,
      version: "0.1.0",
      elixir: "~> 1.14",
      deps: [{:legation, path: "../.."}],
      # Shared, so that Legation is compiled once for both realms.
      build_path: "../../_build/demo"
    ]
  end

  def application, do: [extra_applications: [:logger], mod: {Bob.Application, []}]
end

defmodule Legation.TestUpgrade do
  @moduledoc "A hot upgrade of the library in the VM that this runs in."

  @doc "All modules of the library, but the one that is bound to the native library, are loaded anew. Nobody is killed. Returns them."
  def run do
    modules = for module <- Application.spec(:legation, :modules), upgraded?(module), do: module
    for module <- modules, do: purge(module)
    for module <- modules, do: {:module, ^module} = :code.load_file(module)
    modules
  end

  # Not what is only there for tests, of which some runs this.
  defp upgraded?(Legation.Native), do: false
  defp upgraded?(module), do: module.module_info(:compile)[:source] |> to_string() =~ "/lib/"

  # Idle processes hibernate after a second, and are out of the old code then.
  defp purge(module, tries \\ 500) do
    case :code.soft_purge(module) do
      true ->
        true

      false when tries > 0 ->
        receive do
        after
          20 -> purge(module, tries - 1)
        end

      false ->
        raise "somebody still runs the old code of #{inspect(module)}: #{inspect(who(module))}"
    end
  end

  defp who(module) do
    for pid <- Process.list(), :erlang.check_process_code(pid, module), do: Process.info(pid, [:current_stacktrace])
  end
end

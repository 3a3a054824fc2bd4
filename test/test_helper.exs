# A test's own waiting ends long before: this is for those that do much, on a machine that does other things as well.
timeout = [timeout: 300_000]
formatters = [formatters: [ExUnit.CLIFormatter, Legation.TestFailures]]
ExUnit.start(Legation.TestTransport.configure!() ++ timeout ++ formatters)

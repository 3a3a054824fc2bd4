ExUnit.start(Legation.TestTransport.configure!() ++ [formatters: [ExUnit.CLIFormatter, Legation.TestFailures]])

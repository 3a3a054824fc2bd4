ExUnit.start(Legation.TestTransport.configure!())

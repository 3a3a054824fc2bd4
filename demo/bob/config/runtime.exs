import Config

dir = System.fetch_env!("DEMO_DIR")

config :bob, Legation,
  realm: "bob",
  key: Path.join(dir, "bob.pem"),
  network_key: Path.join(dir, "network.key"),
  peers: [
    [
      realm: "alice",
      key: System.fetch_env!("DEMO_ALICE_KEY"),
      connect: [tcp: [host: "127.0.0.1", port: String.to_integer(System.fetch_env!("DEMO_ALICE_PORT"))]],
      export: ["greeter"]
    ]
  ],
  # What waits for one engine while a cable is cut: the ledger's 100,000 entries are 8.5 million bytes.
  limits: [engine_queue_bytes_max: 16 * 1_024 * 1_024]

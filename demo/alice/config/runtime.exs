import Config

dir = System.fetch_env!("DEMO_DIR")

# On the list, and hostile: what it sends has to pass like anybody's. When it hangs up nobody waits for it. Only in the first
# demonstration.
mallory =
  case System.fetch_env("DEMO_MALLORY_KEY") do
    {:ok, key} -> [[realm: "mallory", key: key, export: ["guestbook"], limits: [grace_ms: 0]]]
    :error -> []
  end

config :alice, Legation,
  realm: "alice",
  key: Path.join(dir, "alice.pem"),
  network_key: Path.join(dir, "network.key"),
  listen: [
    # Any free port.
    tcp: [ip: {127, 0, 0, 1}, port: 0],
    unix: [path: Path.join(dir, "alice.sock")]
  ],
  peers: [
    [realm: "bob", key: System.fetch_env!("DEMO_BOB_KEY"), export: ["counter", "desk", "door", "pager", "ledger"]]
    | mallory
  ]

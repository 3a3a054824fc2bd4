defmodule Legation.CarriersTest do
  # One suite for all carriers, then what is each one's own.
  use ExUnit.Case, async: true

  alias Legation.Carriers.{Memory, Tcp, Unix}

  @wait_ms 5_000
  # More than any carrier keeps on its way.
  @piece_bytes 1024 * 1024
  @pieces 32

  defp listen(carrier, opts \\ []) do
    address =
      case carrier do
        Tcp -> [port: 0, ip: {127, 0, 0, 1}]
        Unix -> [path: socket_path()]
        Memory -> [name: make_ref()]
      end

    {:ok, listener, address} = carrier.listen(address ++ opts)
    on_exit(fn -> carrier.close_listener(listener) end)
    {listener, connect_opts(carrier, address) ++ opts}
  end

  defp connect_opts(Tcp, address), do: [host: {127, 0, 0, 1}] ++ address
  defp connect_opts(_carrier, address), do: address

  defp socket_path do
    path = Path.join(System.tmp_dir!(), "legation-#{System.pid()}-#{System.unique_integer([:positive])}.sock")
    on_exit(fn -> File.rm(path) end)
    path
  end

  defp pair(carrier, opts \\ []) do
    {listener, address} = listen(carrier, opts)
    {:ok, dialler} = carrier.connect(address, @wait_ms)
    {:ok, accepted} = carrier.accept(listener, @wait_ms)
    {dialler, accepted}
  end

  # Takes what is this connection's and leaves the rest in the mailbox.
  defp event(carrier, conn) do
    receive do
      message when is_port(conn) and elem(message, 1) == conn ->
        carrier.stream(conn, message)

      {:memory, pipe, side, _event} = message when {pipe, side} == {elem(conn, 0), elem(conn, 1)} ->
        carrier.stream(conn, message)
    after
      @wait_ms -> flunk("nothing came")
    end
  end

  # At least so many bytes, or all until the end.
  defp read(carrier, conn, bytes, read \\ "")
  defp read(_carrier, _conn, bytes, read) when byte_size(read) >= bytes, do: read

  defp read(carrier, conn, bytes, read) do
    case event(carrier, conn) do
      {:data, data} ->
        read(carrier, conn, bytes, read <> data)

      :passive ->
        :ok = carrier.activate(conn, 10)
        read(carrier, conn, bytes, read)

      :closed ->
        read
    end
  end

  # Of a process that is started, and ends when told so.
  defp owner(fun) do
    test = self()

    spawn_link(fn ->
      send(test, {:result, self(), fun.()})
      receive(do: (:end -> :ok))
    end)
  end

  for carrier <- [Tcp, Unix, Memory] do
    describe "#{inspect(carrier)}" do
      @carrier carrier

      test "carries bytes both ways, in order" do
        {one, other} = pair(@carrier)
        for conn <- [one, other], do: :ok = @carrier.activate(conn, 10)
        for n <- 1..100, do: :ok = @carrier.send(one, ["<", Integer.to_string(n), [?>]])
        :ok = @carrier.send(other, "back")
        sent = Enum.map_join(1..100, &"<#{&1}>")
        assert read(@carrier, other, byte_size(sent)) == sent
        assert read(@carrier, one, 4) == "back"
      end

      test "delivers as many messages as were asked for and then says that it waits" do
        {one, other} = pair(@carrier)
        :ok = @carrier.send(one, "first")
        :ok = @carrier.activate(one, 10)
        # The echo shows that nothing had come before it was asked for.
        :ok = @carrier.send(other, "echo")
        assert event(@carrier, one) == {:data, "echo"}

        :ok = @carrier.activate(other, 1)
        assert event(@carrier, other) == {:data, "first"}
        assert event(@carrier, other) == :passive

        :ok = @carrier.send(one, "second")
        :ok = @carrier.send(other, "echo")
        assert event(@carrier, one) == {:data, "echo"}
        :ok = @carrier.activate(other, 2)
        assert event(@carrier, other) == {:data, "second"}
      end

      test "adds up what was asked for" do
        {one, other} = pair(@carrier)
        :ok = @carrier.activate(other, 1)
        :ok = @carrier.activate(other, 1)

        for text <- ["a", "b"] do
          :ok = @carrier.send(one, text)
          assert event(@carrier, other) == {:data, text}
        end

        assert event(@carrier, other) == :passive
      end

      test "knows no messages of others" do
        {one, other} = pair(@carrier)
        :ok = @carrier.activate(other, 1)
        :ok = @carrier.send(one, "x")
        assert_receive message
        assert @carrier.stream(other, message) == {:data, "x"}
        assert @carrier.stream(one, message) == :unknown
        assert @carrier.stream(one, {:DOWN, make_ref(), :process, self(), :normal}) == :unknown
      end

      test "makes a sender wait while nobody reads, and loses nothing" do
        {one, other} = pair(@carrier)
        piece = :binary.copy("x", @piece_bytes)
        test = self()

        spawn_link(fn ->
          for n <- 1..@pieces do
            :ok = @carrier.send(one, piece)
            send(test, {:sent, n})
          end
        end)

        assert_receive {:sent, 1}, @wait_ms
        refute_received {:sent, @pieces}
        :ok = @carrier.activate(other, 1)
        assert byte_size(read(@carrier, other, @pieces * @piece_bytes)) == @pieces * @piece_bytes
        assert_receive {:sent, @pieces}, @wait_ms
      end

      test "gives up on an end that doesn't read, and nothing can be sent after that" do
        {one, _other} = pair(@carrier, send_timeout_ms: 50)
        piece = :binary.copy("x", @piece_bytes)
        results = Stream.repeatedly(fn -> @carrier.send(one, piece) end)
        assert Enum.find(results, &(&1 != :ok)) == {:error, :timeout}
        assert {:error, reason} = @carrier.send(one, "x")
        assert reason in [:closed, :enotconn]
      end

      test "delivers what was sent before the close, and then the close" do
        {one, other} = pair(@carrier)
        :ok = @carrier.send(one, "last words")
        :ok = @carrier.close(one)
        :ok = @carrier.close(one)
        :ok = @carrier.activate(other, 10)
        assert read(@carrier, other, 1_000_000) == "last words"
        assert {:error, _closed} = @carrier.send(one, "more")
      end

      test "closes when its owner dies" do
        {one, other} = pair(@carrier)
        owner = owner(fn -> :ok end)
        :ok = @carrier.controlling_process(one, owner)
        send(owner, :end)
        :ok = @carrier.activate(other, 10)
        assert event(@carrier, other) == :closed
      end

      test "goes from owner to owner" do
        {one, other} = pair(@carrier)

        owner =
          owner(fn ->
            receive(do: (:go -> :ok))
            :ok = @carrier.activate(other, 1)
            event(@carrier, other)
          end)

        :ok = @carrier.controlling_process(other, owner)
        send(owner, :go)
        :ok = @carrier.send(one, "yours")
        assert_receive {:result, ^owner, {:data, "yours"}}, @wait_ms
      end

      test "accepts in another process than the one that listens" do
        {listener, address} = listen(@carrier)
        acceptor = owner(fn -> @carrier.accept(listener, :infinity) end)
        {:ok, one} = @carrier.connect(address, @wait_ms)
        assert_receive {:result, ^acceptor, {:ok, _conn}}, @wait_ms
        :ok = @carrier.activate(one, 1)
        send(acceptor, :end)
        assert event(@carrier, one) == :closed
      end

      test "stops accepting when the listener is closed, and leaves connections alone" do
        {listener, address} = listen(@carrier)
        {:ok, one} = @carrier.connect(address, @wait_ms)
        {:ok, other} = @carrier.accept(listener, @wait_ms)
        acceptor = owner(fn -> @carrier.accept(listener, :infinity) end)
        :ok = @carrier.close_listener(listener)
        assert_receive {:result, ^acceptor, {:error, :closed}}, @wait_ms
        assert {:error, _nobody} = @carrier.connect(address, @wait_ms)
        :ok = @carrier.activate(other, 1)
        :ok = @carrier.send(one, "still here")
        assert event(@carrier, other) == {:data, "still here"}
      end

      test "waits for a connection no longer than it was told" do
        {listener, address} = listen(@carrier)
        assert @carrier.accept(listener, 1) == {:error, :timeout}
        # Who gave up takes no connection from who comes next.
        {:ok, _one} = @carrier.connect(address, @wait_ms)
        assert {:ok, _other} = @carrier.accept(listener, @wait_ms)
      end

      test "an address is one listener's" do
        {_listener, address} = listen(@carrier)
        assert @carrier.listen(Keyword.put(address, :ip, {127, 0, 0, 1})) == {:error, :eaddrinuse}
      end
    end
  end

  describe "tcp" do
    test "says which port it has got, and who is at the other end" do
      {listener, address} = listen(Tcp)
      assert address[:port] in 1..65_535
      {:ok, one} = Tcp.connect(address, @wait_ms)
      {:ok, other} = Tcp.accept(listener, @wait_ms)
      assert Tcp.peer_label(one) == {{127, 0, 0, 1}, address[:port]}
      assert {{127, 0, 0, 1}, port} = Tcp.peer_label(other)
      assert {:ok, port} == :inet.port(one)
      assert Tcp.check_peer(other, []) == :ok
    end

    test "both ends have the options that matter" do
      {one, other} = pair(Tcp, send_timeout_ms: 77)

      for conn <- [one, other] do
        assert {:ok, options} =
                 :inet.getopts(conn, [:nodelay, :keepalive, :send_timeout, :send_timeout_close, :mode, :packet, :active])

        assert options == [
                 nodelay: true,
                 keepalive: true,
                 send_timeout: 77,
                 send_timeout_close: true,
                 mode: :binary,
                 packet: 0,
                 active: false
               ]

        assert {:ok, [buffer: buffer]} = :inet.getopts(conn, [:buffer])
        # Little for strangers, more once the session is up.
        assert buffer <= 16 * 1024
        assert Tcp.established(conn) == :ok
        assert {:ok, [buffer: grown]} = :inet.getopts(conn, [:buffer])
        assert grown >= 256 * 1024
      end
    end

    test "an abort throws away what a peer that reads nothing has not taken" do
      {one, other} = pair(Tcp)
      :ok = :inet.setopts(other, show_econnreset: true)
      bytes = :binary.copy("x", 64 * 1024 * 1024)
      sender = Task.async(fn -> Tcp.send(one, bytes) end)
      # The first bytes are there, so the sender is at it; all of them fit nowhere.
      assert {:ok, _first} = :gen_tcp.recv(other, 1)
      Tcp.abort(one)
      # Queued or refused: it is over at once either way, where a close would still wait.
      Task.await(sender)
      assert until_error(other) == :econnreset
    end

    defp until_error(conn) do
      case :gen_tcp.recv(conn, 0) do
        {:ok, _bytes} -> until_error(conn)
        {:error, reason} -> reason
      end
    end

    test "a host may be a name" do
      {listener, address} = listen(Tcp)
      assert {:ok, _one} = Tcp.connect(Keyword.put(address, :host, "localhost"), @wait_ms)
      assert {:ok, _other} = Tcp.accept(listener, @wait_ms)
    end

    test "must be knocked at, and is encrypted at first" do
      assert Tcp.knock?()
      assert Tcp.default_profile() == :tls
    end
  end

  describe "unix" do
    test "lets in our own user, and shows it" do
      {one, other} = pair(Unix)
      uid = File.stat!("/proc/self").uid

      for conn <- [one, other] do
        assert Unix.check_peer(conn, []) == :ok
        assert Unix.check_peer(conn, uids: [uid + 1, uid]) == :ok
        assert Unix.check_peer(conn, uids: :any) == :ok
        assert Unix.check_peer(conn, uids: [uid + 1]) == {:error, {:uid_not_allowed, uid}}
        assert Unix.check_peer(conn, uids: []) == {:error, {:uid_not_allowed, uid}}
        assert Unix.peer_label(conn) == {:uid, uid}
      end
    end

    test "the file is open to others only if other users may come" do
      for {opts, mode} <- [{[], 0o600}, {[uids: :any], 0o666}] do
        {_listener, address} = listen(Unix, opts)
        assert Bitwise.band(File.stat!(address[:path]).mode, 0o777) == mode
      end
    end

    test "takes the place of a socket that nobody listens on" do
      path = socket_path()
      {:ok, socket} = :gen_tcp.listen(0, [:local, ifaddr: {:local, path}])
      :ok = :gen_tcp.close(socket)
      assert File.exists?(path)
      assert {:ok, listener, [path: ^path]} = Unix.listen(path: path)
      assert {:ok, _conn} = Unix.connect([path: path], @wait_ms)
      :ok = Unix.close_listener(listener)
    end

    test "takes no place of a file that is no socket" do
      path = socket_path()
      File.write!(path, "precious")
      assert Unix.listen(path: path) == {:error, :eaddrinuse}
      assert File.read!(path) == "precious"
    end

    test "removes its file when it closes, and nobody else's" do
      path = socket_path()
      {:ok, listener, _address} = Unix.listen(path: path)
      :ok = Unix.close_listener(listener)
      refute File.exists?(path)

      {:ok, listener, _address} = Unix.listen(path: path)
      File.rm!(path)
      File.write!(path, "another's")
      :ok = Unix.close_listener(listener)
      assert File.read!(path) == "another's"
    end

    test "has no knock and leaves bytes as they are" do
      refute Unix.knock?()
      assert Unix.default_profile() == :local
    end
  end

  describe "memory" do
    setup do
      name = make_ref()
      {:ok, listener, _address} = Memory.listen(name: name)
      on_exit(fn -> Memory.close_listener(listener) end)
      {:ok, dialler} = Memory.connect([name: name], @wait_ms)
      {:ok, accepted} = Memory.accept(listener, @wait_ms)
      for conn <- [dialler, accepted], do: :ok = Memory.activate(conn, 100)
      %{name: name, listener: listener, dialler: dialler, accepted: accepted}
    end

    test "breaks when it is cut, at both ends, and can be dialled again", context do
      %{name: name, dialler: dialler, accepted: accepted} = context
      assert Memory.cut(name) == 1
      assert event(Memory, dialler) == {:error, :econnreset}
      assert event(Memory, accepted) == {:error, :econnreset}
      assert Memory.send(dialler, "x") == {:error, :closed}
      assert Memory.activate(dialler, 1) == {:error, :closed}
      assert Memory.controlling_process(dialler, self()) == {:error, :closed}
      assert {:ok, _again} = Memory.connect([name: name], @wait_ms)
      assert {:ok, _again} = Memory.accept(context.listener, @wait_ms)
    end

    test "delivers nothing while it is stalled, and all of it afterwards", context do
      %{name: name, dialler: dialler, accepted: accepted} = context
      :ok = Memory.set(name, stall: true)
      :ok = Memory.send(dialler, "one ")
      :ok = Memory.send(dialler, "two")
      # The pipe has handled both when it answers this.
      :ok = Memory.activate(accepted, 1)
      refute_received _message
      :ok = Memory.set(name, stall: false)
      assert read(Memory, accepted, 7) == "one two"
    end

    test "delivers later when it is told so, and in order", context do
      %{name: name, dialler: dialler, accepted: accepted} = context
      :ok = Memory.set(name, delay_ms: 30)
      start_ms = System.monotonic_time(:millisecond)
      :ok = Memory.send(dialler, "slow ")
      :ok = Memory.set(name, delay_ms: 0)
      :ok = Memory.send(dialler, "fast")
      assert read(Memory, accepted, 9) == "slow fast"
      assert System.monotonic_time(:millisecond) - start_ms >= 30
    end

    test "lets a tap see, alter and drop what is on its way", context do
      %{name: name, dialler: dialler, accepted: accepted} = context
      test = self()

      :ok =
        Memory.tap(name, fn direction, bytes ->
          send(test, {:seen, direction, bytes})
          if bytes != "drop", do: [bytes, "!"]
        end)

      for bytes <- ["drop", "keep"], do: :ok = Memory.send(dialler, bytes)
      assert event(Memory, accepted) == {:data, "keep!"}
      :ok = Memory.send(accepted, "back")
      assert event(Memory, dialler) == {:data, "back!"}
      assert_received {:seen, :to_listener, "drop"}
      assert_received {:seen, :to_dialler, "back"}

      :ok = Memory.tap(name, nil)
      :ok = Memory.send(dialler, "plain")
      assert event(Memory, accepted) == {:data, "plain"}
    end

    test "settings hold for connections to come", %{name: name, listener: listener} do
      :ok = Memory.tap(name, fn _direction, _bytes -> "altered" end)
      {:ok, dialler} = Memory.connect([name: name], @wait_ms)
      {:ok, accepted} = Memory.accept(listener, @wait_ms)
      :ok = Memory.activate(accepted, 1)
      :ok = Memory.send(dialler, "x")
      assert event(Memory, accepted) == {:data, "altered"}
    end

    test "nobody listens under a name whose listener died" do
      name = make_ref()

      owner =
        owner(fn ->
          {:ok, listener, _address} = Memory.listen(name: name)
          listener
        end)

      assert_receive {:result, ^owner, listener}, @wait_ms
      acceptor = owner(fn -> Memory.accept(listener, :infinity) end)
      send(owner, :end)
      assert_receive {:result, ^acceptor, {:error, :closed}}, @wait_ms
      assert Memory.connect([name: name], @wait_ms) == {:error, :econnrefused}
    end

    test "a connection leaves no process behind", %{dialler: {pipe, _side, _timeout} = dialler, accepted: accepted} do
      monitor = Process.monitor(pipe)
      :ok = Memory.close(dialler)
      assert event(Memory, accepted) == :closed
      assert_receive {:DOWN, ^monitor, :process, ^pipe, :normal}, @wait_ms
    end
  end
end

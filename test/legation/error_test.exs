defmodule Legation.ErrorTest do
  use ExUnit.Case, async: true

  alias Legation.Error

  doctest Legation.Error

  @refusals [:forbidden, :filtered, :undecodable, :overload, :noproc, :too_large, :identifiers]
  @codes [
    :normal,
    :protocol,
    :version,
    :unlisted,
    :wrong_realm,
    :bad_signature,
    :expired,
    :duplicate,
    :timeout,
    :abuse,
    :unknown_frame,
    :too_large,
    :shutdown,
    :overload,
    :replaced
  ]

  test "of the refusals only overload is worth another try" do
    assert Enum.filter(@refusals, &Error.retry?/1) == [:overload]
    assert Error.retry?({:error, {:legation, :overload}})
    refute Error.retry?({:error, {:legation, :something_new}})
  end

  test "a link that ended is worth another try unless something must be mended first" do
    assert Error.retry?({:closed, :shutdown, ""})
    refute Error.retry?({:closed, :unlisted, ""})
    refute Error.retry?({:fault, :protocol, "x"})
    assert Error.retry?({:connect, :econnrefused})
    refute Error.retry?({:connect, {:uid_not_allowed, 5}})
    assert Error.retry?(Error.wrap({:carrier, :closed}))
  end

  test "every refusal and every close code has words" do
    for reason <- @refusals, do: refute(Error.message(reason) =~ inspect(reason))

    for code <- @codes,
        reason <- [{:closed, code, ""}, {:fault, code, ""}, {:local, code}],
        do: refute(Error.message(reason) =~ inspect(code))
  end

  test "who gets no answer is told what it may be" do
    assert Error.message(:no_answer) =~ "other network key, other realm, other profile, a clock off by more than 30 s"

    assert Error.message({:fault, :answer, "its MAC is wrong"}) ==
             "who answered has not shown our network key: \"its MAC is wrong\""
  end

  test "the system's errors have the system's words" do
    assert Error.message({:connect, :econnrefused}) == "could not connect: nobody listens there"
    assert Error.message({:carrier, :epipe}) == "the connection broke: broken pipe"
    assert Error.message({:carrier, {:odd, 1}}) == "the connection broke: {:odd, 1}"
  end

  test "a peer's text can't make a line of its own" do
    message = Error.message({:closed, :protocol, "x\n12:00 [error] all is lost\e[31m"})
    assert message =~ "the peer closed: the protocol was broken"
    assert String.printable?(message)
    refute message =~ "\n"
    assert String.length(Error.message({:fault, :protocol, String.duplicate("x", 10_000)})) < 1_000
  end

  test "an end of a link becomes an exception with the same words" do
    assert %Error.ProtocolError{} = error = Error.wrap({:closed, :unlisted, ""})
    assert Exception.message(error) == Error.message({:closed, :unlisted, ""})
    assert %Error.TransportError{} = Error.wrap({:connect, :nxdomain})
  end
end

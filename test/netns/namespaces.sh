# Sourced by test/netns/run and test/chaos/run: two networks of this machine, joined by cables, one for each number.
#
#   namespace A ($a)                       namespace B ($b)
#     10.77.0.1 ◄──────── veth0 ────────► 10.77.0.2
#     10.77.1.1 ◄──────── veth1 ────────► 10.77.1.2      with `networks 2`
#
# Nothing of this machine's own network is touched, and all of it is gone when the script ends. Where it can't be done `networks` says
# so, in the name of $who, and ends the script with status 0, or $left_out_status.
export LANG=C.UTF-8 LC_ALL=C.UTF-8
a="legation_a_$$" b="legation_b_$$"
epmds=()

left_out() { echo "$who: left out: $*"; exit "${left_out_status:-0}"; }

# By their numbers: nothing else is ended.
clean_networks() {
  for pid in "${epmds[@]}"; do kill "$pid" 2>/dev/null || true; done
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
}

networks() {
  [ "$(uname)" = Linux ] || left_out 'it needs Linux'
  command -v ip >/dev/null || left_out 'it needs `ip` (on Debian: apt-get install iproute2)'
  [ "$(id -u)" = 0 ] || left_out 'it needs root, for network namespaces'
  trap clean_networks EXIT
  ip netns add "$a" 2>/dev/null || left_out 'network namespaces can not be made here'
  ip netns add "$b"
  for namespace in "$a" "$b"; do ip -n "$namespace" link set lo up; done
  for ((cable = 0; cable < $1; cable++)); do
    ip link add "veth$cable" netns "$a" type veth peer name "veth$cable" netns "$b" 2>/dev/null || left_out 'this kernel has no veth'
    ip -n "$a" addr add "10.77.$cable.1/30" dev "veth$cable"
    ip -n "$b" addr add "10.77.$cable.2/30" dev "veth$cable"
    for namespace in "$a" "$b"; do ip -n "$namespace" link set "veth$cable" up; done
  done
  export LEGATION_NETNS_A="$a" LEGATION_NETNS_B="$b"
}

# One of each network's own, which no other node of this machine meets.
epmds() {
  local epmd
  epmd="$(erl -noshell -eval 'io:put_chars(os:find_executable("epmd", filename:join([code:root_dir(), "erts-" ++ erlang:system_info(version), "bin"]) ++ ":" ++ os:getenv("PATH"))), halt().')"
  for namespace in "$a" "$b"; do
    ip netns exec "$namespace" "$epmd" -address 127.0.0.1 >/dev/null 2>&1 &
    epmds+=($!)
  done
}

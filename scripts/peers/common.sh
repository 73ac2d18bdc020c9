# shellcheck shell=bash
# What every contestant's script shares: its commands, its environment, and the undoing of what it did.
# A contestant sources this, defines `describe`, `packages`, `refusal` and `start` (and `target_of`, if
# clients do not address the virtual address), and ends with `contest "$@"`.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

contestant=${0##*/}
readonly contestant

# How many flows a translator and how many connections a proxy shall be able to hold.
# shellcheck disable=SC2034 # for those who source this
readonly most_flows=1200000 most_connections=200000

usage() {
    cat <<HELP
usage: scripts/peers/$contestant up udp|tcp | down | target | needs

$(describe)

  up PROTOCOL  starts it in the balancer's namespace; returns when it serves
  down         undoes all that 'up' did; fine when there is nothing to undo
  target       prints what clients address, ADDRESS:PORT
  needs        prints the Debian packages that it takes

environment (of 'up', 'down' and 'target'):
  RINGGATE_BENCH_NETNS         namespace of the balancer
  RINGGATE_BENCH_FRONT, _BACK  its interfaces towards clients and backends
  RINGGATE_BENCH_VIP, _PORT    the service
  RINGGATE_BENCH_BACKENDS      the backends' addresses, separated by spaces, of the service's family
  RINGGATE_BENCH_BACKEND_PORT  their port
  RINGGATE_BENCH_WORK          a directory for what has to be remembered
  RINGGATE_BENCH_CORES         CPUs that are its own, such as "1" or "2 3"; all, if not set

exit status: 0 done · 1 it failed · 2 the command line or the environment is wrong
             4 it cannot be had here: why is on standard error, in one line
HELP
}

complain() { printf '%s: %s\n' "$contestant" "$*" >&2; }
misuse() { complain "$*; see scripts/peers/$contestant --help"; exit 2; }
cannot_be_had() { complain "$*"; exit 4; }
inside() { ip netns exec "$netns" "$@"; }

# ---------------------------------------------------------------- the environment

read_environment() {
    local name value
    for name in NETNS FRONT BACK VIP PORT BACKENDS BACKEND_PORT WORK; do
        value=RINGGATE_BENCH_$name
        [[ -n ${!value:-} ]] || misuse "$value is not set"
    done
    netns=$RINGGATE_BENCH_NETNS front=$RINGGATE_BENCH_FRONT back=$RINGGATE_BENCH_BACK
    vip=$RINGGATE_BENCH_VIP port=$RINGGATE_BENCH_PORT
    # shellcheck disable=SC2034 # for those who source this
    backend_port=$RINGGATE_BENCH_BACKEND_PORT
    read -ra backends <<<"$RINGGATE_BENCH_BACKENDS"
    mapfile -t cores < <(
        if [[ -n ${RINGGATE_BENCH_CORES:-} ]]; then
            grep -o '[0-9]*' <<<"$RINGGATE_BENCH_CORES"
        else
            seq 0 $(($(nproc --all) - 1))
        fi
    )
    state=$RINGGATE_BENCH_WORK/peer-$contestant
    family=$(family_of "$vip")
    local address
    for address in "${backends[@]}"; do
        [[ $(family_of "$address") == "$family" ]] || misuse "the backend $address is not of the family of $vip"
    done
}

family_of() { if [[ $1 == *:* ]]; then echo 6; else echo 4; fi; }

# An address as it stands before a port.
bracketed() { if [[ $1 == *:* ]]; then printf '[%s]' "$1"; else printf '%s' "$1"; fi; }

# The CPUs, as taskset(1) takes them.
core_list() { local IFS=,; printf '%s' "${cores[*]}"; }

# ---------------------------------------------------------------- what is undone

# Has `down` run this command. What was done last is undone first.
undo_by() { printf '%q ' "$@" >>"$state/undo" && echo >>"$state/undo"; }

undo_all() {
    local command failed=0
    [[ -d $state ]] || return 0
    if [[ -e $state/undo ]]; then
        while read -r command; do
            # Of a namespace that is gone there is nothing to undo.
            [[ -e /run/netns/$netns || $command != ip\ netns\ * ]] || continue
            eval "$command" >"$state/output" 2>&1 || { complain "cannot undo: $command: $(cat "$state/output")"; failed=1; }
        done < <(tac "$state/undo")
    fi
    rm -rf "$state"
    return "$failed"
}

# Sets a kernel parameter of the namespace, or leaves it where it is right.
set_parameter() { # name, value
    local before
    before=$(inside sysctl -n "$1") || return
    [[ ${before//$'\t'/ } != "$2" ]] || return 0
    inside sysctl -qw "$1=$2"
    undo_by ip netns exec "$netns" sysctl -qw "$1=${before//$'\t'/ }"
}

# The same for what the whole host has once. The namespace may only read it, so it is set where we are.
raise_host_parameter() { # name, at least
    local before
    before=$(sysctl -n "$1") || return
    ((before < $2)) || return 0
    sysctl -qw "$1=$2" || { complain "$1 must be at least $2, and can be set in the host's own network namespace only"; return 1; }
    undo_by sysctl -qw "$1=$before"
}

# Ends the process of a pid file and waits for it.
end_process() { # pid file
    local pid turn
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    for ((turn = 0; turn < 100; turn++)); do
        # A zombie has ended, whoever its parent is.
        [[ -e /proc/$pid && $(awk '/^State:/ {print $2}' "/proc/$pid/status" 2>/dev/null) != Z ]] || return 0
        sleep 0.05
    done
    kill -KILL "$pid"
}

# ---------------------------------------------------------------- what several need

# Makes the links as they serve a kernel best that forwards or terminates; docs in README.md.
prepare_links() {
    local link limit
    for link in "$front" "$back"; do
        # A veth has no queue by default; one that was given a pfifo for AF_XDP gets it back.
        limit=$(inside tc qdisc show dev "$link" root | sed -n 's/^qdisc pfifo .* limit \([0-9]*\)p.*/\1/p')
        if [[ -n $limit ]]; then
            inside tc qdisc replace dev "$link" root noqueue
            undo_by ip netns exec "$netns" tc qdisc replace dev "$link" root pfifo limit "$limit"
        fi
        # With GRO a veth polls by NAPI, without a program: only so it takes XDP frames from its peer.
        if inside ethtool -k "$link" | grep -q '^generic-receive-offload: off$'; then
            inside ethtool -K "$link" gro on
            undo_by ip netns exec "$netns" ethtool -K "$link" gro off
        fi
    done
}

# Has what arrives handled by threads on the contestant's own CPUs, not by its sender's.
receive_on_own_cores() {
    local link thread number=0 before
    for link in "$front" "$back"; do
        inside test -w "/sys/class/net/$link/threaded" || continue
        [[ $(inside cat "/sys/class/net/$link/threaded") == 0 ]] || continue
        before=" $(polling_threads "$link") "
        inside sh -c "echo 1 >/sys/class/net/$link/threaded"
        undo_by ip netns exec "$netns" sh -c "echo 0 >/sys/class/net/$link/threaded"
        for thread in $(polling_threads "$link"); do
            [[ $before != *" $thread "* ]] || continue
            taskset -pc "${cores[number % ${#cores[@]}]}" "$thread" >/dev/null
            number=$((number + 1))
        done
    done
}

# Kernel threads have no namespace: those of all links of this name.
polling_threads() { # link
    { grep -ls "^Name:.napi/${1:0:10}" /proc/[0-9]*/status || true; } | tr -dc '0-9\n' | tr '\n' ' '
}

# Makes the kernel a router.
forward() {
    prepare_links
    receive_on_own_cores
    if ((family == 4)); then
        # A kernel that begins or ceases to forward sets this by itself.
        undo_by ip netns exec "$netns" sysctl -qw "net.ipv4.conf.all.accept_redirects=$(inside sysctl -n net.ipv4.conf.all.accept_redirects)"
        set_parameter net.ipv4.ip_forward 1
        set_parameter net.ipv4.ip_early_demux 0
        local scope
        for scope in all "$front" "$back"; do
            set_parameter "net.ipv4.conf.$scope.rp_filter" 0
            set_parameter "net.ipv4.conf.$scope.send_redirects" 0
        done
    else
        set_parameter net.ipv6.conf.all.forwarding 1
    fi
}

# Makes the virtual address one of the namespace's own.
own_address() {
    local length=32
    ((family == 4)) || length=128
    inside ip address add "$vip/$length" dev lo
    undo_by ip netns exec "$netns" ip address del "$vip/$length" dev lo
}

# Makes the namespace a place for a proxy: the virtual address is its own, and ports do not run out.
terminate() {
    prepare_links
    own_address
    # 64,512 ports for each backend, for both families.
    set_parameter net.ipv4.ip_local_port_range "1024 65535"
    set_parameter net.ipv4.tcp_tw_reuse 1
    set_parameter net.ipv4.tcp_max_syn_backlog 65535
    set_parameter net.core.somaxconn 65535
    # Two descriptors a connection. Who may not raise its limit has fewer, and should know.
    local descriptors=$((2 * most_connections + 1000))
    ulimit -n "$descriptors" 2>/dev/null || descriptors=$(ulimit -Hn)
    connections=$(((descriptors - 1000) / 2))
    ((connections == most_connections)) || complain "at most $connections connections at once: no more than $descriptors files may be open here (ulimit -Hn)"
}

# ---------------------------------------------------------------- commands

missing_programs() { # those that this contestant needs
    local program
    for program in ip ethtool tc sysctl taskset "$@"; do
        command -v "$program" >/dev/null || printf '%s ' "$program"
    done
}

up() { # protocol
    local reason
    [[ ${1:-} == udp || ${1:-} == tcp ]] || misuse "'up' takes udp or tcp, not '${1:-}'"
    ((EUID == 0)) || misuse "network namespaces need root"
    [[ -e /run/netns/$netns ]] || misuse "there is no namespace $netns"
    [[ ! -e $state ]] || misuse "it is up already, as $state says"
    reason=$(refusal "$1")
    [[ -z $reason ]] || cannot_be_had "$reason"
    mkdir -p "$state"
    trap undo_a_failure EXIT
    trap 'exit 130' INT TERM
    start "$1"
    trap - EXIT
}

undo_a_failure() {
    trap - EXIT
    complain "it did not start; what was done for it is undone"
    undo_all || true
    exit 1
}

target_of() { printf '%s:%s\n' "$(bracketed "$vip")" "$port"; }

contest() {
    case ${1:-} in
        needs) packages ;;
        up) read_environment; up "${2:-}" ;;
        down) read_environment; undo_all ;;
        target) read_environment; target_of ;;
        -h | --help) usage ;;
        '') usage >&2; exit 2 ;;
        *) misuse "unknown command '$1'" ;;
    esac
}

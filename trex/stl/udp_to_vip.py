"""UDP from many clients to a service: TRex stateless, port 0. See docs/TREX.md.

start -f udp_to_vip.py -p 0 -m 1mpps -t --vip 10.100.0.1 --port 53 --flows 100000 --size imix
"""

import argparse
import ipaddress

from trex_stl_lib.api import (
    CTRexVmInsFixHwCs,
    Ether,
    IP,
    STLFlowLatencyStats,
    STLPktBuilder,
    STLScVmRaw,
    STLStream,
    STLTXCont,
    STLVmFixChecksumHw,
    STLVmTupleGen,
    STLVmWrFlowVar,
    UDP,
)

# Frames with their check sequence, and how many of each: the simple IMIX, 7:4:1.
IMIX = [(64, 7), (594, 4), (1518, 1)]

# TRex adds the check sequence.
CHECK_SEQUENCE = 4
HEADERS = 14 + 20 + 8
# A latency stream's payload begins with 16 bytes of TRex's own.
SMALLEST_WITH_LATENCY = 64

FIRST_PORT = 1024
PORTS_OF_AN_ADDRESS = 50000


def options(tunables, more=None):
    """What a profile is told behind `-t`, checked."""
    parser = argparse.ArgumentParser(prog="profile")
    parser.add_argument("--vip", default="10.100.0.1", help="address of the service")
    parser.add_argument("--port", type=int, default=53, help="port of the service")
    parser.add_argument("--first-client", default="10.1.0.2", help="first address of the clients")
    parser.add_argument("--flows", type=int, default=100000, help="different addresses and ports of clients, at least")
    parser.add_argument("--size", default="64", help="a frame's length with its check sequence, 64 to 1518, or imix")
    parser.add_argument("--latency", action="store_true", help="a thousand packets per second that measure latency, beside the load")
    if more:
        more(parser)
    told = parser.parse_args(tunables)
    told.vip = str(ipaddress.IPv4Address(told.vip))
    told.clients = -(-told.flows // PORTS_OF_AN_ADDRESS)
    told.ports = -(-told.flows // told.clients)
    told.last_client = str(ipaddress.IPv4Address(told.first_client) + told.clients - 1)
    told.sizes = IMIX if told.size == "imix" else [(int(told.size), 1)]
    if told.flows < 1 or not 1 <= told.port <= 65535:
        parser.error("--flows is at least 1, --port from 1 to 65535")
    if any(not 64 <= size <= 1518 for size, _ in told.sizes):
        parser.error("--size is from 64 to 1518, or imix")
    return told


def varied(told, address, port):
    """Every packet has the next of the clients' addresses and ports, in these fields."""
    return STLScVmRaw(
        [
            STLVmTupleGen(
                name="client",
                ip_min=told.first_client,
                ip_max=told.last_client,
                port_min=FIRST_PORT,
                port_max=FIRST_PORT + told.ports - 1,
            ),
            STLVmWrFlowVar(fv_name="client.ip", pkt_offset="IP." + address),
            STLVmWrFlowVar(fv_name="client.port", pkt_offset="UDP." + port),
            # The NIC makes both checksums of what was changed.
            STLVmFixChecksumHw(l3_offset="IP", l4_offset="UDP", l4_type=CTRexVmInsFixHwCs.L4_TYPE_UDP),
        ]
    )


def frame(size, headers):
    """`headers` and as many bytes as the frame needs, without the check sequence."""
    return headers / (b"\x00" * (size - CHECK_SEQUENCE - HEADERS))


def streams(told, headers, vm, latency_id):
    """A stream for each size, at the rate that `start -m` multiplies; and what measures latency."""
    made = [
        STLStream(packet=STLPktBuilder(pkt=frame(size, headers()), vm=vm()), mode=STLTXCont(pps=share))
        for size, share in told.sizes
    ]
    if told.latency:
        # Its own flow, so that one client's way is measured and not the mean of all.
        made.append(
            STLStream(
                packet=STLPktBuilder(pkt=frame(SMALLEST_WITH_LATENCY + CHECK_SEQUENCE, headers())),
                mode=STLTXCont(pps=1000),
                flow_stats=STLFlowLatencyStats(pg_id=latency_id),
            )
        )
    return made


class UdpToVip:
    """Clients on port 0; what arrives at port 1 is counted there."""

    def get_streams(self, direction=0, tunables=(), **kwargs):
        """One direction only: nothing is sent from port 1."""
        told = options(list(tunables))
        if direction != 0:
            return []

        def headers():
            return Ether() / IP(src=told.first_client, dst=told.vip) / UDP(sport=FIRST_PORT, dport=told.port)

        return streams(told, headers, lambda: varied(told, "src", "sport"), latency_id=5)


def register():
    """What TRex asks a profile for."""
    return UdpToVip()

"""Direct return: requests from port 0 through the balancer, answers from port 1 around it. See docs/TREX.md.

start -f dsr.py -p 0 1 -m 500kpps -t --vip 10.100.0.2 --port 53 --answer-size 594
"""

from trex_stl_lib.api import Ether, IP, UDP
from udp_to_vip import FIRST_PORT, options, streams, varied


def answer_size(parser):
    """Answers are longer than requests, as a rule: it is what direct return is for."""
    parser.add_argument("--answer-size", type=int, default=594, help="a frame of the backends, with its check sequence")


class DirectReturn:
    """Port 0 has the clients, port 1 the backends, which all have the service's address."""

    def get_streams(self, direction=0, tunables=(), **kwargs):
        """Requests on port 0; on port 1 as many answers, from the service to the same clients."""
        told = options(list(tunables), answer_size)
        if direction == 0:

            def request():
                return Ether() / IP(src=told.first_client, dst=told.vip) / UDP(sport=FIRST_PORT, dport=told.port)

            return streams(told, request, lambda: varied(told, "src", "sport"), latency_id=7)

        def answer():
            return Ether() / IP(src=told.vip, dst=told.first_client) / UDP(sport=told.port, dport=FIRST_PORT)

        told.sizes = [(told.answer_size, sum(share for _, share in told.sizes))]
        # Answers do not pass the balancer: their latency says nothing of it.
        told.latency = False
        return streams(told, answer, lambda: varied(told, "dst", "dport"), latency_id=8)


def register():
    """What TRex asks a profile for."""
    return DirectReturn()

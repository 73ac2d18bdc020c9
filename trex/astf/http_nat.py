"""Requests and answers over TCP through `nat` or `full-nat`: TRex ASTF, whose both ends have a TCP of their own and so
do not mind that the balancer changes addresses and ports. See docs/TREX.md.

start -f http_nat.py -m 1000 -t --vip 10.100.0.1 --port 80 --backend-port 8080 --answer 1024
"""

import argparse
import ipaddress

from trex.astf.api import (
    ASTFAssociationRule,
    ASTFIPGen,
    ASTFIPGenDist,
    ASTFIPGenGlobal,
    ASTFProfile,
    ASTFProgram,
    ASTFTCPClientTemplate,
    ASTFTCPServerTemplate,
    ASTFTemplate,
)


def options(tunables):
    """What the profile is told behind `-t`, checked."""
    parser = argparse.ArgumentParser(prog="http_nat.py")
    parser.add_argument("--vip", default="10.100.0.1", help="address of the service")
    parser.add_argument("--port", type=int, default=80, help="port of the service")
    parser.add_argument("--backend-port", type=int, default=8080, help="port of the backends")
    parser.add_argument("--first-client", default="10.1.0.2", help="first address of the clients")
    parser.add_argument("--clients", type=int, default=200, help="how many")
    parser.add_argument("--first-backend", default="10.2.0.11", help="first address of the backends")
    parser.add_argument("--backends", type=int, default=8, help="how many")
    parser.add_argument("--answer", type=int, default=1024, help="bytes of the answer's body")
    parser.add_argument("--requests", type=int, default=1, help="requests of a connection")
    told = parser.parse_args(tunables)
    for name in ("clients", "backends", "requests"):
        if getattr(told, name) < 1:
            parser.error("--{} is at least 1".format(name))
    if told.answer < 0:
        parser.error("--answer is not negative")
    return told


def span(first, count):
    """The first and the last of `count` addresses."""
    return [str(ipaddress.IPv4Address(first)), str(ipaddress.IPv4Address(first) + count - 1)]


class HttpNat:
    """One template: a client's side that addresses the service, a server's side at the backends' addresses."""

    def get_profile(self, tunables=(), **kwargs):
        """One connection per second, which `start -m` multiplies."""
        told = options(list(tunables))
        request = "GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: trex\r\n\r\n".format(told.vip).encode()
        answer = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n".format(told.answer).encode() + b"*" * told.answer

        client = ASTFProgram()
        server = ASTFProgram()
        for _ in range(told.requests):
            client.send(request)
            client.recv(len(answer))
            server.recv(len(request))
            server.send(answer)

        addresses = ASTFIPGen(
            # Of a second pair of ports the clients would be so far from the first's.
            glob=ASTFIPGenGlobal(ip_offset="0.1.0.0"),
            dist_client=ASTFIPGenDist(ip_range=span(told.first_client, told.clients), distribution="seq"),
            # What clients address.
            dist_server=ASTFIPGenDist(ip_range=span(told.vip, 1), distribution="seq"),
        )
        first, last = span(told.first_backend, told.backends)
        template = ASTFTemplate(
            client_template=ASTFTCPClientTemplate(program=client, ip_gen=addresses, port=told.port, cps=1),
            # What the balancer makes of it.
            server_template=ASTFTCPServerTemplate(
                program=server,
                assoc=ASTFAssociationRule(ip_start=first, ip_end=last, port=told.backend_port),
            ),
        )
        return ASTFProfile(default_ip_gen=addresses, templates=template)


def register():
    """What TRex asks a profile for."""
    return HttpNat()

#!/usr/bin/python3
"""A gRPC server with the standard health service: grpc_health.py ADDRESS [CHAIN KEY].

The server as a whole and `well` serve, `sick` does not, and no other service is known. With the files
of a certificate chain and its key it speaks TLS. Messages are taken apart by hand: the tests need no
code generator for two fields.
"""

import concurrent.futures
import sys
import threading

import grpc

STATUS = {"": 1, "well": 1, "sick": 2}


def check(request, context):
    name = request[2:].decode()
    if name not in STATUS:
        context.abort(grpc.StatusCode.NOT_FOUND, f"no service {name}")
    return bytes([0x08, STATUS[name]])


def main(address, *files):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    methods = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods),)
    )
    if files:
        chain, key = (open(name, "rb").read() for name in files)
        server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
    else:
        server.add_insecure_port(address)
    server.start()
    # Not wait_for_termination: in Debian 12 it keeps the server from answering.
    threading.Event().wait()


main(*sys.argv[1:])

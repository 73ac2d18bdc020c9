#!/usr/bin/python3
"""A gRPC server with the standard health service: health_server.py ADDRESS [CHAIN KEY].

The server as a whole and `well` serve, `sick` does not, and no other service is known. With the files
of a certificate chain and its key it speaks TLS. Messages are taken apart by hand: the tests need no
code generator for two fields.

This file must not be called grpc_health.py: `import grpc` looks for a module of that name, and would find
this one before it is ready itself.
"""

import concurrent.futures
import sys

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
    server.wait_for_termination()


main(*sys.argv[1:])

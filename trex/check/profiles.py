"""Holds the TRex profiles against a stub of TRex's API: which frames, addresses, ports and rates they ask for.

TRex itself is not run: whether it takes them as they are meant is not shown here."""

import contextlib
import importlib
import io
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(HERE, "stub"), os.path.join(HERE, "..", "stl"), os.path.join(HERE, "..", "astf")]


def streams(profile, direction, *tunables):
    return importlib.import_module(profile).register().get_streams(direction=direction, tunables=list(tunables))


def layers(stream):
    ether = stream.packet.pkt
    ip, udp = ether.inside[0], ether.inside[1]
    return ip.values, udp.values


class Stateless(unittest.TestCase):
    def test_every_flow_is_a_client_of_the_service(self):
        (stream,) = streams("udp_to_vip", 0, "--vip", "10.100.0.7", "--port", "5353", "--flows", "120000")
        ip, udp = layers(stream)
        self.assertEqual((ip["dst"], udp["dport"]), ("10.100.0.7", 5353))
        client, address, port, sums = stream.packet.vm.commands
        self.assertEqual((client.ip_min, client.ip_max), ("10.1.0.2", "10.1.0.4"))
        self.assertEqual((client.port_min, client.port_max), (1024, 1024 + 39999))
        self.assertEqual((address.fv_name, address.pkt_offset), ("client.ip", "IP.src"))
        self.assertEqual((port.fv_name, port.pkt_offset), ("client.port", "UDP.sport"))
        self.assertEqual((sums.l3_offset, sums.l4_offset, sums.l4_type), ("IP", "UDP", 11))
        # Without the check sequence, which the NIC adds.
        self.assertEqual(len(stream.packet.pkt), 60)

    def test_imix_is_seven_four_one(self):
        made = streams("udp_to_vip", 0, "--size", "imix")
        self.assertEqual([(len(one.packet.pkt) + 4, one.mode.pps) for one in made], [(64, 7), (594, 4), (1518, 1)])

    def test_latency_has_a_stream_of_its_own(self):
        load, latency = streams("udp_to_vip", 0, "--latency")
        self.assertIsNone(load.flow_stats)
        self.assertEqual((latency.flow_stats.pg_id, latency.mode.pps), (5, 1000))
        # One flow, with room for what TRex writes into it.
        self.assertIsNone(latency.packet.vm)
        self.assertGreaterEqual(len(latency.packet.pkt), 14 + 20 + 8 + 16)

    def test_nothing_is_sent_back_by_nat_of_udp(self):
        self.assertEqual(streams("udp_to_vip", 1), [])

    def test_answers_go_around_the_balancer(self):
        (request,) = streams("dsr", 0, "--vip", "10.100.0.2")
        (answer,) = streams("dsr", 1, "--vip", "10.100.0.2", "--answer-size", "1000", "--latency")
        ip, udp = layers(request)
        self.assertEqual((ip["src"], ip["dst"], udp["dport"]), ("10.1.0.2", "10.100.0.2", 53))
        ip, udp = layers(answer)
        self.assertEqual((ip["src"], ip["dst"], udp["sport"]), ("10.100.0.2", "10.1.0.2", 53))
        asking, answering = request.packet.vm.commands, answer.packet.vm.commands
        self.assertEqual(vars(asking[0]), vars(answering[0]))
        self.assertEqual([one.pkt_offset for one in answering[1:3]], ["IP.dst", "UDP.dport"])
        self.assertEqual(len(answer.packet.pkt), 996)
        self.assertEqual(request.mode.pps, answer.mode.pps)
        # Of each request one answer, of whatever sizes requests are.
        requests = streams("dsr", 0, "--size", "imix")
        (answer,) = streams("dsr", 1, "--size", "imix")
        self.assertEqual(sum(one.mode.pps for one in requests), answer.mode.pps)

    def test_mistakes_are_refused(self):
        for wrong in (["--size", "63"], ["--size", "1519"], ["--flows", "0"], ["--port", "0"], ["--colour", "red"]):
            with self.assertRaises((SystemExit, ZeroDivisionError), msg=wrong), contextlib.redirect_stderr(io.StringIO()):
                streams("udp_to_vip", 0, *wrong)


class Stateful(unittest.TestCase):
    @staticmethod
    def profile(*tunables):
        return importlib.import_module("http_nat").register().get_profile(tunables=list(tunables))

    def test_clients_address_the_service_and_servers_are_the_backends(self):
        profile = self.profile("--vip", "10.100.0.9", "--port", "81", "--backend-port", "8081", "--backends", "3", "--clients", "300")
        client, server = profile.templates.client_template, profile.templates.server_template
        self.assertEqual((client.port, client.cps), (81, 1))
        self.assertEqual(client.ip_gen.dist_client.ip_range, ["10.1.0.2", "10.1.1.45"])
        self.assertEqual(client.ip_gen.dist_server.ip_range, ["10.100.0.9", "10.100.0.9"])
        self.assertEqual((server.assoc.ip_start, server.assoc.ip_end, server.assoc.port), ("10.2.0.11", "10.2.0.13", 8081))
        self.assertIs(profile.default_ip_gen, client.ip_gen)

    def test_each_side_waits_for_what_the_other_sends(self):
        profile = self.profile("--answer", "100", "--requests", "2")
        client, server = profile.templates.client_template.program.steps, profile.templates.server_template.program.steps
        self.assertEqual(len(client), 4)
        for (does, what), (answers, with_what) in zip(client, server):
            self.assertEqual({does, answers}, {"send", "recv"})
            sent, awaited = (what, with_what) if does == "send" else (with_what, what)
            self.assertEqual(len(sent), awaited)
        self.assertTrue(server[1][1].endswith(b"\r\n\r\n" + b"*" * 100))
        self.assertIn(b"Content-Length: 100\r\n", server[1][1])

    def test_mistakes_are_refused(self):
        for wrong in (["--clients", "0"], ["--answer", "-1"], ["--backends", "0"]):
            with self.assertRaises(SystemExit, msg=wrong), contextlib.redirect_stderr(io.StringIO()):
                self.profile(*wrong)


if __name__ == "__main__":
    unittest.main()

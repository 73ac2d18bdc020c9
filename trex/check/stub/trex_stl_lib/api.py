"""What the profiles use of TRex's stateless API and of Scapy, with the names of their parameters: a wrong one is a
TypeError, as it would be there. Objects remember what they were made of."""


class Layer:
    """A header, and what was put behind it."""

    length = 0
    fields = ()

    def __init__(self, **values):
        unknown = set(values) - set(self.fields)
        if unknown:
            raise TypeError("{} has no field {}".format(type(self).__name__, sorted(unknown)))
        self.values = values
        self.inside = []

    def __truediv__(self, other):
        self.inside.append(other)
        return self

    def __len__(self):
        return self.length + sum(len(one) for one in self.inside)


class Ether(Layer):
    length = 14
    fields = ("src", "dst")


class IP(Layer):
    length = 20
    fields = ("src", "dst", "ttl")


class UDP(Layer):
    length = 8
    fields = ("sport", "dport")


class CTRexVmInsFixHwCs:
    L4_TYPE_UDP = 11
    L4_TYPE_TCP = 13


class STLVmTupleGen:
    def __init__(self, name, ip_min="0.0.0.1", ip_max="0.0.0.10", port_min=1025, port_max=65535, limit_flows=0, flags=0):
        self.name, self.ip_min, self.ip_max, self.port_min, self.port_max = name, ip_min, ip_max, port_min, port_max


class STLVmWrFlowVar:
    def __init__(self, fv_name, pkt_offset, offset_fixup=0, add_val=0, is_big=True):
        self.fv_name, self.pkt_offset = fv_name, pkt_offset


class STLVmFixChecksumHw:
    def __init__(self, l3_offset, l4_offset, l4_type):
        self.l3_offset, self.l4_offset, self.l4_type = l3_offset, l4_offset, l4_type


class STLScVmRaw:
    def __init__(self, list_of_commands=None, cache_size=None):
        self.commands = list_of_commands


class STLPktBuilder:
    def __init__(self, pkt=None, pkt_buffer=None, vm=None, path_relative_to_profile=False, build_raw=False):
        self.pkt, self.vm = pkt, vm


class STLTXCont:
    def __init__(self, pps=None, bps_L1=None, bps_L2=None, percentage=None):
        self.pps = pps


class STLFlowLatencyStats:
    def __init__(self, pg_id):
        self.pg_id = pg_id


class STLStream:
    def __init__(self, name=None, packet=None, mode=None, enabled=True, isg=0.0, flow_stats=None, next=None, stream_id=None):
        self.packet, self.mode, self.flow_stats = packet, mode, flow_stats

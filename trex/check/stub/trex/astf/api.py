"""What the profiles use of TRex's ASTF API, with the names of its parameters. Objects remember what they were made of."""


class ASTFProgram:
    def __init__(self, file=None, side="c", commands=None, stream=True):
        self.steps = []

    def send(self, buf, size=None, fill=None):
        self.steps.append(("send", buf))

    def recv(self, bytes, clear=False):
        self.steps.append(("recv", bytes))


class ASTFIPGenGlobal:
    def __init__(self, ip_offset="1.0.0.0", ip_offset_server=None):
        self.ip_offset = ip_offset


class ASTFIPGenDist:
    def __init__(self, ip_range, distribution="seq", per_core_distribution=None):
        self.ip_range, self.distribution = ip_range, distribution


class ASTFIPGen:
    def __init__(self, dist_client, dist_server, glob=None):
        self.dist_client, self.dist_server, self.glob = dist_client, dist_server, glob


class ASTFAssociationRule:
    def __init__(self, ip_start=None, ip_end=None, port=80, l7_map=None):
        self.ip_start, self.ip_end, self.port = ip_start, ip_end, port


class ASTFTCPClientTemplate:
    def __init__(self, ip_gen, program, cluster=None, port=80, cps=1, glob_info=None, limit=None, cont=None):
        self.ip_gen, self.program, self.port, self.cps = ip_gen, program, port, cps


class ASTFTCPServerTemplate:
    def __init__(self, program=None, assoc=None, glob_info=None):
        self.program, self.assoc = program, assoc


class ASTFTemplate:
    def __init__(self, client_template=None, server_template=None, tg_name=None):
        self.client_template, self.server_template = client_template, server_template


class ASTFProfile:
    def __init__(self, default_ip_gen, default_c_glob_info=None, default_s_glob_info=None, templates=None, cap_list=None):
        self.default_ip_gen, self.templates = default_ip_gen, templates

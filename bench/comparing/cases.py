"""The cases: what is fetched from where, by whom, and the goals of the issue that asked for the comparison."""

import subprocess
from dataclasses import dataclass, field

import contenders as by
import servers

GIB = 1 << 30
ROUND_TRIP_MS, LOSS = 20, 0.001


def size_text(size):
    return f"{size / GIB:g} GiB" if size % GIB == 0 else f"{size / servers.MIB:.4g} MiB"


@dataclass(frozen=True)
class Goal:
    """`figure` of `ours` is at most `factor` times the least of `peers`; without peers: at most `factor`."""

    factor: float
    peers: tuple = ()
    ours: str = "fvprefetch"
    figure: str = "wall"

    def text(self):
        what = {"wall": "", "cpu_per_gib": "CPU s/GiB ", "peak_mib": "peak MiB "}[self.figure]
        if not self.peers:
            unit = " s" if self.figure == "wall" else ""
            return f"{self.ours}: {what}<= {self.factor:g}{unit}"
        peer = self.peers[0] if len(self.peers) == 1 else "best of " + ", ".join(self.peers)
        return f"{self.ours}: {what}<= {self.factor:.3g} x {peer}"


@dataclass
class Case:
    key: str
    title: str
    bytes: int = 0
    contenders: list = field(default_factory=list)
    goals: list = field(default_factory=list)
    reference: str = "fvprefetch"  # the ratios of the table are to this one
    left_out: str = ""  # why it was not measured
    on_disk: bool = False  # the files land in the output folder, wherever the others do


CURL, CURLS = "curl" + by.CHECKED, "curl --parallel" + by.CHECKED
ARIA = tuple(f"aria2c -x{n}" for n in (1, 8, 16))
HF = "hf download" + by.CHECKED
HUB = "fvprefetch from the Hub"
WIDEST = "fvprefetch --connections 16"  # as many as aria2c -x16 has; the default is 8
BUSIEST = "fvprefetch --max-active 16"  # as many files as aria2c -j16 has; the default is 8


class Bench:
    """Servers and files, made when the first case needs them, and the cases themselves."""

    def __init__(self, arguments, work, disk, stack):
        self.arguments, self.work, self.disk, self.stack = arguments, work, disk, stack
        self.www = work / "www"
        self.www.mkdir()
        output = arguments.output
        self.programs = by.Programs(arguments.build, output / "hf", output / "hf-transfer")
        self.groups = {}
        self.certificate = servers.make_certificate(work)

    def make(self, names):
        sizes = {
            "big": lambda: {"big.bin": self.arguments.size << 20},
            "quarter": lambda: {"quarter.bin": self.arguments.size << 18},
            "far": lambda: {"far.bin": self.arguments.size << 15},
            "small": lambda: {f"part-{i:04}.json": 10 << 10 for i in range(1000)},
            "mixed": servers.mixed_sizes,
        }
        for name in names:
            self.groups[name] = servers.make_group(self.www, name, sizes[name]())

    def serve(self):
        """`near` on loopback, with and without TLS, and with HTTP/2."""
        plain, cdn, tls, h2 = servers.free_ports(4)
        self.near = f"http://127.0.0.1:{plain}"
        self.near_tls, self.near_h2 = f"https://127.0.0.1:{tls}", f"https://127.0.0.1:{h2}"
        listen = [f"127.0.0.1:{plain}", f"127.0.0.1:{cdn}", f"127.0.0.1:{tls} ssl", f"127.0.0.1:{h2} ssl http2"]
        groups = list(self.groups.values())
        self.stack.enter_context(
            servers.nginx(self.work, groups, listen, f"{self.near}/up", f"http://127.0.0.1:{cdn}", self.certificate)
        )

    def big(self):
        group, base = self.groups["big"], f"{self.near}/plain/big"
        p = self.programs
        case = Case("big", f"one file of {size_text(group.size)}, loopback", group.size)
        case.contenders = [
            by.fvprefetch(p, group, base),
            by.minimal_fetch(p, group, base),
            by.curl(p, group, base),
            by.curl(p, group, base, coreutils=True),
            *(by.aria2c(p, group, base, n) for n in (1, 8, 16)),
            by.hf_download(p, group, self.near),
            by.hf_download(p, group, self.near, transfer=True),
            by.copy(group, self.www / "plain/big"),
        ]
        case.goals = [
            Goal(0.6, (CURL,)), Goal(0.7, ARIA), Goal(1.1, ("minimal_fetch",)), Goal(2.5, figure="cpu_per_gib"),
        ]  # fmt: skip
        case.contenders.insert(1, by.fvprefetch(p, group, base, ("--connections", "16")))
        case.goals.append(Goal(64, ours=WIDEST, figure="peak_mib"))
        return case

    def limited(self):
        group, base = self.groups["quarter"], f"{self.near}/limited/quarter"
        p = self.programs
        case = Case(
            "limited",
            f"one file of {size_text(group.size)}, {servers.RATE / 1e6:g} MB/s for each connection",
            group.size,
        )
        case.contenders = [
            by.fvprefetch(p, group, base),
            by.curl(p, group, base),
            by.aria2c(p, group, base, 8),
            by.aria2c(p, group, base, 16),
        ]
        case.contenders.insert(1, by.fvprefetch(p, group, base, ("--connections", "16")))
        case.goals = [Goal(1 / 7, (CURL,)), Goal(1.05, ("aria2c -x16",), ours=WIDEST)]
        return case

    def tls(self):
        group, base, certificate = self.groups["big"], f"{self.near_tls}/plain/big", self.certificate
        p = self.programs
        case = Case("tls", f"one file of {size_text(group.size)}, loopback, TLS 1.3", group.size)
        case.contenders = [
            by.fvprefetch(p, group, base, env={"SSL_CERT_FILE": str(certificate)}),
            by.minimal_fetch(p, group, base, certificate),
            by.curl(p, group, base, ("--cacert", certificate)),
        ]
        case.goals = [Goal(0.85, (CURL,))]
        return case

    def far(self):
        group = self.groups["far"]
        case = Case(
            "far", f"one file of {size_text(group.size)}, {ROUND_TRIP_MS} ms round trip, {LOSS:.1%} loss", group.size
        )
        try:
            link = self.stack.enter_context(
                servers.slow_link(
                    self.programs.of_build("bench/slow_link"), ROUND_TRIP_MS, LOSS, self.work / "link.log"
                )
            )
        except RuntimeError as error:
            case.left_out = str(error)
            return case
        server = ("nsenter", f"--net={link['server']}")
        client = ("nsenter", f"--net={link['client']}")
        congestion = subprocess.run(
            [*server, "cat", "/proc/sys/net/ipv4/tcp_congestion_control"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        ).stdout.strip()
        case.title += f", {congestion or 'unknown congestion control'} (wire: bench/slow_link)"
        base = f"http://{link['address']}/plain/far"
        listen = [f"{link['address']}:80"]
        self.stack.enter_context(
            servers.nginx(self.work, [group], listen, f"http://{link['address']}/up", enter=server)
        )
        p = by.Programs(self.programs.build, self.programs.hf, self.programs.hf_transfer, client)
        case.contenders = [
            by.fvprefetch(p, group, base),
            by.fvprefetch(p, group, base, ("--connections", "16")),
            by.curl(p, group, base),
            by.aria2c(p, group, base, 8),
            by.aria2c(p, group, base, 16),
        ]
        case.goals = [Goal(0.5, (CURL,)), Goal(0.9, ("aria2c -x16",), ours=WIDEST)]
        return case

    def small(self):
        group, base = self.groups["small"], f"{self.near}/plain/small"
        p = self.programs
        case = Case("small", f"{len(group.files):,} files of 10 KiB, loopback", group.size)
        case.contenders = [
            by.fvprefetch(p, group, base),
            by.fvprefetch(p, group, base, ("--max-active", "16")),
            by.curl(p, group, base, ("--parallel",)),
            by.aria2c(p, group, base, 1, at_once=16),
            by.fvprefetch_hub(p, group, self.near),
            by.hf_download(p, group, self.near),
        ]
        case.goals = [
            Goal(1.5, (CURLS,)), Goal(0.5, ("aria2c -j16",), ours=BUSIEST), Goal(0.1, (HF,), ours=HUB),
        ]  # fmt: skip
        return case

    def small_h2(self):
        group, base, certificate = self.groups["small"], f"{self.near_h2}/plain/small", self.certificate
        p = self.programs
        case = Case("small-h2", f"{len(group.files):,} files of 10 KiB, loopback, TLS 1.3, HTTP/2 offered", group.size)
        case.contenders = [
            by.fvprefetch(p, group, base, env={"SSL_CERT_FILE": str(certificate)}),
            by.curl(p, group, base, ("--parallel", "--cacert", certificate)),
            by.aria2c(p, group, base, 1, at_once=16, options=("--ca-certificate", certificate)),
        ]
        return case

    def mixed(self):
        group, p = self.groups["mixed"], self.programs
        case = Case(
            "mixed", f"a snapshot of {len(group.files)} files, {size_text(group.size)}, cold", group.size, reference=HUB
        )
        case.contenders = [
            by.fvprefetch_hub(p, group, self.near),
            by.hf_download(p, group, self.near),
            by.hf_download(p, group, self.near, transfer=True),
        ]
        case.goals = [Goal(0.4, (HF,), ours=HUB)]
        return case

    def warm(self):
        group, p = self.groups["mixed"], self.programs
        ours = HUB + ", warm"
        case = Case("warm", "the same snapshot, warm, one process", group.size, reference=ours)
        case.contenders = [
            by.warm(by.fvprefetch_hub(p, group, self.near)),
            by.warm(by.hf_download(p, group, self.near)),
            by.warm(by.hf_download(p, group, self.near), offline=True),
        ]
        case.goals = [Goal(0.02, ours=ours), Goal(1 / 20, ("hf download, warm",), ours=ours)]
        return case

    def big_disk(self):
        group, base = self.groups["big"], f"{self.near}/plain/big"
        p = self.programs
        case = Case(
            "big-disk", f"one file of {size_text(group.size)}, loopback, onto the disk", group.size, on_disk=True
        )
        case.contenders = [
            by.fvprefetch(p, group, base),
            by.minimal_fetch(p, group, base),
            by.curl(p, group, base),
            by.curl(p, group, base, sync=True),
        ]
        case.goals = [Goal(0.6, (CURL,)), Goal(1.1, ("minimal_fetch",))]
        return case

    def small_disk(self):
        group, base = self.groups["small"], f"{self.near}/plain/small"
        p = self.programs
        case = Case(
            "small-disk", f"{len(group.files):,} files of 10 KiB, loopback, onto the disk", group.size, on_disk=True
        )
        case.contenders = [
            by.fvprefetch(p, group, base),
            by.curl(p, group, base, ("--parallel",)),
            by.curl(p, group, base, ("--parallel",), sync=True),
        ]
        case.goals = [Goal(1.5, (CURLS,))]
        return case

    # Case -> the files that it needs.
    CASES = {
        "big": ("big",), "limited": ("quarter",), "tls": ("big",), "far": ("far",), "small": ("small",),
        "small-h2": ("small",), "mixed": ("mixed",), "warm": ("mixed",),
        "big-disk": ("big",), "small-disk": ("small",),
    }  # fmt: skip

    def case(self, key):
        return getattr(self, key.replace("-", "_"))()

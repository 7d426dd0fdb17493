"""Staging against what people do by hand; run by bench/stage_bench, which builds. See bench/README.md."""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cluster import Cluster, LeftOut

MIB = 1 << 20
COMMIT = "c" * 40
SMALL_FILES, SMALL_SIZE = 1000, 10 << 10
WARM_FILES = 10  # few, since it is not stat() that is to be measured
RUN_LIMIT = 300  # seconds until one start of mpirun counts as hanging
ROUND_LIMIT = 300  # and one round on the cluster's nodes
OURS = "ours"
FAR_MS = 1  # that a metadata server under load takes for an answer; that of the cluster takes 0.1
CPU_UNSEEN = {"sbcast"}  # daemons do the work


# --- the shared folder ----------------------------------------------------------------------------


def add_repo(hub, repo, sizes):
    """A repository as a download leaves it: blobs named by their sha256, links in a snapshot, the list of its files."""
    root = hub / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    noise, listed = os.urandom(16 * MIB), {}
    for number, size in enumerate(sizes):
        digest, partial = hashlib.sha256(), root / "blobs" / "partial"
        head = number.to_bytes(8, "big")  # every file is another one
        with open(partial, "wb") as out:
            for at in range(0, size, len(noise)):
                piece = (head + noise)[: min(len(noise), size - at)] if at == 0 else noise[: min(len(noise), size - at)]
                digest.update(piece)
                out.write(piece)
        partial.rename(root / "blobs" / digest.hexdigest())
        name = f"file-{number:04}.bin"
        (snapshot / name).symlink_to(f"../../blobs/{digest.hexdigest()}")
        lfs = {"lfs_sha256": digest.hexdigest(), "lfs_size": size}
        listed[name] = {"size": size, "blob_id": f"{number:040x}"} | lfs
    (root / "trees").mkdir()
    (root / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": listed}))
    return sum(sizes)


# --- running --------------------------------------------------------------------------------------


def mpirun(segments, ranks, *command):
    env = os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # containers forbid it, and complain
        "OMPI_MCA_btl_base_warn_component_unused": "0",
        "OMPI_MCA_btl_vader_backing_directory": str(segments),
    }
    return run(["mpirun", "-n", str(ranks), *command], env)


def run(command, env=None):
    """(seconds, standard output)"""
    begin = time.monotonic()
    words = [str(word) for word in command]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=RUN_LIMIT)
        except BaseException as why:
            process.terminate()  # not killed: mpirun has to end its ranks
            process.communicate(timeout=30)
            if isinstance(why, subprocess.TimeoutExpired):
                sys.exit(f"error: {command[0]} takes longer than {RUN_LIMIT} s; see --mib and --rounds")
            raise
    wall = time.monotonic() - begin
    if process.returncode != 0:
        sys.exit(f"error: {command[0]} ended with {process.returncode}:\n{out[-2000:]}{err[-2000:]}")
    return wall, out


def stage_case(args, work, name, content):
    """Rows of one case: nodes, way, medians."""
    rows = []
    for nodes in args.nodes:
        _, text = mpirun(work, nodes, args.build / "bench/stage_bench", work / "shared", work / "nodes", f"org/{name}", args.rounds)
        rows += stage_rows_of(name, nodes, text, content)
    return rows


def stage_rows_of(case, nodes, text, content):
    """From what the program stage_bench has printed."""
    rows = []
    rounds = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    ours = {r["round"]: r["wall"] for r in rounds if r["way"] == OURS}
    for way in dict.fromkeys(r["way"] for r in rounds):
        mine = [r for r in rounds if r["way"] == way]
        rows.append(
            {
                "case": case,
                "nodes": nodes,
                "way": way,
                "wall": statistics.median(r["wall"] for r in mine),
                "least": min(r["wall"] for r in mine),
                "most": max(r["wall"] for r in mine),
                "cpu": None if way in CPU_UNSEEN else statistics.median(r["cpu"] for r in mine),
                "read": statistics.median(r["read"] for r in mine) / content,
                "to_ours": statistics.median(r["wall"] / ours[r["round"]] for r in mine),
                "rounds": mine,
            }
        )
        show_stage(rows[-1])
    return rows


def show_stage(row):
    spread = f"{row['wall']:.3f} ({row['least']:.3f}-{row['most']:.3f})"
    cpu = "-" if row["cpu"] is None else f"{row['cpu']:.2f}"
    print(
        f"{row['case']:9} {row['nodes']:>5}  {row['way']:20} {spread:>24} {cpu:>8} {row['read']:>8.2f} {row['to_ours']:>8.2f}",
        flush=True,
    )


# --- real nodes -----------------------------------------------------------------------------------


def memory_of_machine():
    """(all, what is free for programs) in MiB"""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {words[0]: int(words[1]) for words in lines}
    return kib["MemTotal:"] >> 10, kib["MemAvailable:"] >> 10


def nodes_that_fit(args):
    """(how many, MiB of each)"""
    # A node's own disk is in its memory, and of that the half; what it has read of the file is cached beside.
    each = 3 * args.cluster_mib + 256
    total, free = memory_of_machine()
    # The nodes' memory is in a tmpfs, which takes half of the machine's.
    fit = min(total // 2, free - 2048) // each
    if fit < 2:
        raise LeftOut(f"two nodes of {each} MiB do not fit in this machine's memory")
    return min(args.cluster_nodes, fit), each


def cluster_case(args):
    """Rows of both kinds of content, on nodes of tests/cluster; none where that cannot be."""
    try:
        nodes, each = nodes_that_fit(args)
        print(f"cluster: bringing up {nodes} of {args.cluster_nodes} nodes, {each} MiB each; big: {args.cluster_mib} MiB", flush=True)
        cluster = Cluster("nfs", nodes, f"{each}M", "fvp-stage-bench-")
        with cluster.up() as folder:
            content = {
                "big": add_repo(folder / "hub", "org/big", [args.cluster_mib * MIB]),
                "small": add_repo(folder / "hub", "org/small", [SMALL_SIZE] * SMALL_FILES),
            }
            cluster.share(folder / "hub", "hub")
            # On each node's own disk, so that no page of it comes from the server meanwhile.
            cluster.share(args.build / "bench/stage_bench", "stage_bench")
            on_nodes(cluster, nodes, folder, ["cp", "/shared/stage_bench", "/local/stage_bench"], ROUND_LIMIT)

            def measure(case, name):
                command = ["/local/stage_bench", "/shared", "/local/own", f"org/{name}", args.rounds, "--cold"]
                text = on_nodes(cluster, nodes, folder, command, args.rounds * ROUND_LIMIT)
                return stage_rows_of(case, nodes, text, content[name])

            rows = measure("nfs big", "big") + measure("nfs small", "small")
            if move_away(cluster, nodes):
                rows += measure("nfs far", "small")
            else:
                print("cluster: `nfs far` is left out: the nodes' kernel has no netem", flush=True)
            return rows
    except LeftOut as why:
        print(f"cluster: left out: {why}", flush=True)
        return []


def move_away(cluster, nodes):
    """What a node sends arrives later from now on, at the server and at other nodes."""
    server = "$(findmnt -no SOURCE /shared | cut -d: -f1)"
    device = f"$(ip -o route get {server} | grep -o 'dev [^ ]*' | cut -c5-)"
    script = f"modprobe sch_netem && tc qdisc replace dev {device} root netem delay {FAR_MS}ms"
    srun = ["srun", "-K1", "-D/", f"-N{nodes}", f"-n{nodes}", "--ntasks-per-node=1"]
    return cluster.call("run", *srun, "bash", "-c", script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def on_nodes(cluster, nodes, folder, command, limit):
    """What a process on each node prints."""
    # Not pipes: a process that is left behind cannot keep us waiting for their end.
    with open(folder / "out", "w+") as out, open(folder / "err", "w+") as err:
        srun = ["srun", "-K1", "-D/", f"-N{nodes}", f"-n{nodes}", "--ntasks-per-node=1"]
        code = cluster.call("run", *srun, *command, limit=limit, stdout=out, stderr=err)
        out.seek(0)
        err.seek(0)
        if code != 0:
            sys.exit(f"error: {command[0]} on the cluster: {code}:\n{err.read()[-2000:]}")
        return out.read()


def warm_case(args, work):
    """What a run of the command with nothing to do adds to an empty MPI program."""
    manifest = work / "manifest.json"
    manifest.write_text(json.dumps([{"name": "m", "source": "org/warm"}]))
    ours = [args.build / "fvprefetch", manifest, "--hf-cache-dir", work / "shared/hub", "--cache-dir", work / "shared/eval", "--offline"]
    run(ours)  # writes what a first run writes
    rows = []
    for ranks in (1, *args.warm_ranks):
        pairs = []
        for i in range(args.warm_rounds if ranks < 64 else min(3, args.warm_rounds)):
            ways = {"ours": ours, "empty": [args.build / "bench/stage_bench"]}
            order = list(ways) if i % 2 == 0 else list(ways)[::-1]
            pairs.append({way: mpirun(work, ranks, *ways[way])[0] for way in order})
        rows.append(warm_row(f"{ranks} under mpirun", pairs))
        if ranks == 1:
            rows.append(warm_row("1, no mpirun", [{"ours": alone_seconds(args, work, ours), "empty": 0.0} for _ in range(5 * args.warm_rounds)]))
    return rows


def alone_seconds(args, work, command):
    """Without what Python takes to start a process, which counts in milliseconds."""
    run([args.build / "bench/measure", work / "measure.json", "--", *command])
    return json.loads((work / "measure.json").read_text())["wall"]


def warm_row(ranks, pairs):
    row = {
        "ranks": ranks,
        "ours": statistics.median(p["ours"] for p in pairs),
        "empty": statistics.median(p["empty"] for p in pairs),
        "added": statistics.median(p["ours"] - p["empty"] for p in pairs),
        "rounds": pairs,
    }
    print(f"{row['ranks']:16} {row['ours'] * 1e3:>10.1f} {row['empty'] * 1e3:>18.1f} {row['added'] * 1e3:>10.1f}", flush=True)
    return row


# --- goals ----------------------------------------------------------------------------------------


def goals(args, stage_rows, warm_rows):
    """What was not measured has no value, and is not met."""
    found = []

    def goal(text, value, limit):
        found.append({"goal": text, "value": value, "limit": limit, "met": None if value is None else value <= limit})

    def row(case, nodes, way):
        return next((r for r in stage_rows if (r["case"], r["nodes"], r["way"]) == (case, nodes, way)), None)

    def ours_over(case, nodes, way):
        other = row(case, nodes, way)
        return 1 / other["to_ours"] if other else None

    def reads(case, nodes):
        ours = row(case, nodes, OURS)
        return ours["read"] if ours else None

    def warm(ranks):
        return next((r for r in warm_rows if r["ranks"] == ranks), None)

    goal("one big file to 4 nodes, over MPI_Bcast with write", ours_over("big", 4, "bcast"), 0.75)
    for nodes in args.nodes:
        goal(f"the big file, {nodes} nodes: reads of its size", reads("big", nodes), 1.005)
    goal("cluster: the big file to 4 nodes, over MPI_Bcast with write", ours_over("nfs big", 4, "bcast"), 0.75)
    goal("cluster: the big file to 4 nodes, over sbcast", ours_over("nfs big", 4, "sbcast"), 0.4)
    goal("cluster: the big file to 4 nodes: reads of its size", reads("nfs big", 4), 1.005)
    goal("cluster: small files to 4 nodes, over each reading", ours_over("nfs small", 4, "each reads"), 0.3)
    goal(f"the same, {FAR_MS} ms from the server", ours_over("nfs far", 4, "each reads"), 0.3)
    eight, alone = warm("8 under mpirun"), warm("1, no mpirun")
    limit = 1.1 * eight["empty"] + 0.02 if eight else None
    goal("warm, 8 ranks: seconds (limit: 1.1 x empty + 0.02)", eight and eight["ours"], limit)
    goal("warm, one process, MPI build: seconds", alone and alone["ours"], 0.02)
    return found


def show_goal(goal):
    if goal["value"] is None:
        print(f"not measured: {goal['goal']}")
    else:
        print(f"{'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['value']:.3f} (<= {goal['limit']:.3f})")


# --- all of it ------------------------------------------------------------------------------------


def numbers(text):
    return [int(word) for word in text.split(",") if word]


def arguments():
    parser = argparse.ArgumentParser(prog="bench/stage_bench", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where the shared folder and the nodes' are made (default: %(default)s)")
    parser.add_argument("--mib", type=int, default=1024, help="size of the big file (default: %(default)s)")
    parser.add_argument("--nodes", type=numbers, default=[2, 4, 8], help="ranks of this machine (default: 2,4,8)")
    parser.add_argument("--rounds", type=int, default=3, help="of staging (default: %(default)s)")
    parser.add_argument("--warm-ranks", type=numbers, default=[2, 8, 64], help="default: 2,8,64; 1 is always measured")
    parser.add_argument("--warm-rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--cluster-nodes", type=int, default=4, help="of tests/cluster, fewer where memory is short (default: %(default)s)")
    parser.add_argument("--cluster-mib", type=int, default=256, help="size of the big file there (default: %(default)s)")
    parser.add_argument("--cases", default="big,small,warm,cluster", help="some of big,small,warm,cluster")
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    cases = args.cases.split(",")
    free = shutil.disk_usage(args.dir).free
    need = (1 + max(args.nodes, default=0)) * args.mib * MIB + 512 * MIB
    if "big" in cases and free < need:
        sys.exit(f"error: {args.dir} has {free // MIB} MiB free, {need // MIB} are needed; see --mib and --dir")
    # Whatever ends this, the folder goes, and MPI's shared memory with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="fvp-stage-bench-", dir=args.dir) as folder:
        work = Path(folder)
        hub = work / "shared" / "hub"
        (work / "nodes").mkdir()
        content = {
            "big": add_repo(hub, "org/big", [args.mib * MIB]) if "big" in cases else 0,
            "small": add_repo(hub, "org/small", [SMALL_SIZE] * SMALL_FILES),
            "warm": add_repo(hub, "org/warm", [SMALL_SIZE] * WARM_FILES),
        }
        print(
            f"{os.cpu_count()} cores, {mpirun_version()}, {platform.system()} {platform.release().split('-')[0]}, "
            f"load {os.getloadavg()[0]:.1f}; big: one file of {args.mib} MiB; small: {SMALL_FILES} files of {SMALL_SIZE >> 10} KiB"
        )
        stage_rows = []
        if {"big", "small", "cluster"} & set(cases):
            print(f"\n{'case':9} {'nodes':>5}  {'way':20} {'wall s':>24} {'CPU s':>8} {'reads':>8} {'to ours':>8}")
        for name in ("big", "small"):
            if name in cases:
                stage_rows += stage_case(args, work, name, content[name])
        if "cluster" in cases:
            stage_rows += cluster_case(args)
        warm_rows = []
        if "warm" in cases:
            print(f"\n{'warm run, ranks':16} {'ours ms':>10} {'empty MPI prog. ms':>18} {'added ms':>10}")
            warm_rows = warm_case(args, work)
    found = goals(args, stage_rows, warm_rows)
    print()
    for goal in found:
        show_goal(goal)
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    result = {"stage": stage_rows, "warm": warm_rows, "goals": found, "mib": args.mib}
    (args.output / "stage_bench.json").write_text(json.dumps(result, indent=1) + "\n")


def mpirun_version():
    return run(["mpirun", "--version"])[1].splitlines()[0].replace("mpirun (", "").replace(")", "")


if __name__ == "__main__":
    main()

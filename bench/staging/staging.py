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

MIB = 1 << 20
COMMIT = "c" * 40
SMALL_FILES, SMALL_SIZE = 1000, 10 << 10
WARM_FILES = 10  # few, since it is not stat() that is to be measured
RUN_LIMIT = 300  # seconds until one start of mpirun counts as hanging
OURS = "ours"


# --- the shared folder ----------------------------------------------------------------------------


def add_repo(hub, repo, sizes):
    """A repository as the Hub cache has it: blobs named by their sha256, links in a snapshot."""
    root = hub / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    noise = os.urandom(16 * MIB)
    for number, size in enumerate(sizes):
        digest, partial = hashlib.sha256(), root / "blobs" / "partial"
        head = number.to_bytes(8, "big")  # every file is another one
        with open(partial, "wb") as out:
            for at in range(0, size, len(noise)):
                piece = (head + noise)[: min(len(noise), size - at)] if at == 0 else noise[: min(len(noise), size - at)]
                digest.update(piece)
                out.write(piece)
        partial.rename(root / "blobs" / digest.hexdigest())
        (snapshot / f"file-{number:04}.bin").symlink_to(f"../../blobs/{digest.hexdigest()}")
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
        rounds = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        ours = {r["round"]: r["wall"] for r in rounds if r["way"] == OURS}
        for way in dict.fromkeys(r["way"] for r in rounds):
            mine = [r for r in rounds if r["way"] == way]
            rows.append(
                {
                    "case": name,
                    "nodes": nodes,
                    "way": way,
                    "wall": statistics.median(r["wall"] for r in mine),
                    "least": min(r["wall"] for r in mine),
                    "most": max(r["wall"] for r in mine),
                    "cpu": statistics.median(r["cpu"] for r in mine),
                    "read": statistics.median(r["read"] for r in mine) / content,
                    "to_ours": statistics.median(r["wall"] / ours[r["round"]] for r in mine),
                    "rounds": mine,
                }
            )
            show_stage(rows[-1])
    return rows


def show_stage(row):
    spread = f"{row['wall']:.3f} ({row['least']:.3f}-{row['most']:.3f})"
    print(
        f"{row['case']:6} {row['nodes']:>5}  {row['way']:20} {spread:>24} {row['cpu']:>8.2f} "
        f"{row['read']:>8.2f} {row['to_ours']:>8.2f}",
        flush=True,
    )


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


def goals(stage_rows, warm_rows):
    def find(case, nodes, way):
        return next((r for r in stage_rows if (r["case"], r["nodes"], r["way"]) == (case, nodes, way)), None)

    found = []

    def goal(text, value, limit):
        found.append({"goal": text, "value": value, "limit": limit, "met": value <= limit})

    if bcast := find("big", 4, "bcast"):
        goal("one big file to 4 nodes, over MPI_Bcast with write", 1 / bcast["to_ours"], 0.75)
    for row in stage_rows:
        if row["way"] == OURS and row["case"] == "big":
            goal(f"the big file, {row['nodes']} nodes: reads of its size", row["read"], 1.005)
    for row in warm_rows:
        if row["ranks"].startswith("8 "):
            goal("warm, 8 ranks: seconds (limit: 1.1 x empty + 0.02)", row["ours"], 1.1 * row["empty"] + 0.02)
        if row["ranks"] == "1, no mpirun":
            goal("warm, one process, MPI build: seconds", row["ours"], 0.02)
    return found


# --- all of it ------------------------------------------------------------------------------------


def numbers(text):
    return [int(word) for word in text.split(",") if word]


def arguments():
    parser = argparse.ArgumentParser(prog="bench/stage_bench", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where the shared folder and the nodes' are made (default: %(default)s)")
    parser.add_argument("--mib", type=int, default=1024, help="size of the big file (default: %(default)s)")
    parser.add_argument("--nodes", type=numbers, default=[2, 4, 8], help="default: 2,4,8")
    parser.add_argument("--rounds", type=int, default=3, help="of staging (default: %(default)s)")
    parser.add_argument("--warm-ranks", type=numbers, default=[2, 8, 64], help="default: 2,8,64; 1 is always measured")
    parser.add_argument("--warm-rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--cases", default="big,small,warm", help="some of big,small,warm")
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
        if "big" in cases or "small" in cases:
            print(f"\n{'case':6} {'nodes':>5}  {'way':20} {'wall s':>24} {'CPU s':>8} {'reads':>8} {'to ours':>8}")
        for name in ("big", "small"):
            if name in cases:
                stage_rows += stage_case(args, work, name, content[name])
        warm_rows = []
        if "warm" in cases:
            print(f"\n{'warm run, ranks':16} {'ours ms':>10} {'empty MPI prog. ms':>18} {'added ms':>10}")
            warm_rows = warm_case(args, work)
    found = goals(stage_rows, warm_rows)
    print()
    for goal in found:
        print(f"{'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['value']:.3f} (<= {goal['limit']:.3f})")
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    result = {"stage": stage_rows, "warm": warm_rows, "goals": found, "mib": args.mib}
    (args.output / "stage_bench.json").write_text(json.dumps(result, indent=1) + "\n")


def mpirun_version():
    return run(["mpirun", "--version"])[1].splitlines()[0].replace("mpirun (", "").replace(")", "")


if __name__ == "__main__":
    main()

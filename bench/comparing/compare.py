"""fvprefetch against its peers; run by bench/compare, which installs and builds. See bench/README.md."""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import contenders as by
import servers
from cases import GIB, Bench

TOP = Path(__file__).resolve().parents[2]
RUN_LIMIT = 180  # seconds until one run counts as hanging
WARM_RUNS = 5  # in a round
MANY_FILES = 100


# --- measuring ------------------------------------------------------------------------------------


def run_once(bench, contender, out, hash_files):
    """One run into `out`: its figures. What it left is looked at afterwards, outside the time."""
    result, log = bench.work / "result.json", bench.work / "run.log"
    result.unlink(missing_ok=True)
    argv = [bench.programs.of_build("bench/measure"), result, "--"]
    for i, step in enumerate(contender.steps(out)):
        argv += (["--then"] if i else []) + step
    env = by.base_environment(bench.work) | {k: str(v) for k, v in contender.env.items()}
    env["TMPDIR"] = str(out / "tmp")  # FastVideo's locks lie there; they go with the rest of it
    (out / "tmp").mkdir(exist_ok=True)
    with open(log, "wb") as text:
        process = subprocess.Popen(
            [str(a) for a in argv], env=env, cwd=bench.work, stdin=subprocess.DEVNULL, stdout=text, stderr=text,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(RUN_LIMIT)
        except BaseException as error:  # ours to end, whatever ends us
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = f"none within {RUN_LIMIT} s"
    if code != 0:
        raise RuntimeError(f"{contender.name} ended with {code}: {log.read_text(errors='replace').strip()[-800:]}")
    lines = set(log.read_text(errors="replace").splitlines()) if contender.digests else ()
    for path, file in contender.files(out).items():
        if contender.digests and f"{file.sha256} *{path}" not in lines:
            raise RuntimeError(f"{contender.name}: the digest of {path} was not printed, or is another one")
        if path.stat().st_size != file.size:
            raise RuntimeError(f"{contender.name} left {path.stat().st_size} bytes of {file.size} in {path}")
        if hash_files:
            with open(path, "rb") as data:
                if hashlib.file_digest(data, "sha256").hexdigest() != file.sha256:
                    raise RuntimeError(f"{contender.name} left wrong bytes in {path}")
    told = json.loads(result.read_text())
    return {
        "wall": told["wall"],
        "cpu": sum(step["cpu"] for step in told["steps"]),
        "peak_kib": max(step["peak_kib"] for step in told["steps"]),
        "steps": told["steps"],
    }


def measure(bench, case):
    """Every contender once a round, each round beginning with another one."""
    rounds = {contender.name: [] for contender in case.contenders}
    failed = {}
    outs = (bench.disk if case.on_disk else bench.work) / "out"
    for number in range(bench.arguments.rounds):
        shift = number % len(case.contenders)
        for contender in case.contenders[shift:] + case.contenders[:shift]:
            if contender.name in failed:
                continue
            out = outs / re.sub(r"\W+", "-", contender.name)
            try:
                if not out.exists():
                    out.mkdir(parents=True)
                    contender.prepare(out)
                    if contender.filled_by:
                        run_once(bench, contender.filled_by, out, True)
                # Warm is hardly more than the start of a process, so it is looked at more often.
                for _ in range(WARM_RUNS if contender.filled_by else 1):
                    rounds[contender.name].append(run_once(bench, contender, out, not rounds[contender.name]))
            except (RuntimeError, OSError) as error:
                failed[contender.name] = str(error)
                print(f"   {error}", file=sys.stderr)
            if case.on_disk and len(contender.files(out)) > MANY_FILES and out.exists():
                # ext4 passes over each inode that was deleted in the last minutes whenever it makes a file:
                # who comes next would pay for that, the more the more files it makes.
                out.rename(outs / f"done-{number}-{out.name}")
                os.sync()
            elif not contender.filled_by:
                shutil.rmtree(out, ignore_errors=True)  # unwritten pages go with it: no debt for the next one
    shutil.rmtree(outs, ignore_errors=True)
    return rounds, failed


def figures(rounds, size):
    def median(of):
        return statistics.median(map(of, rounds))

    return {
        "wall": median(lambda r: r["wall"]),
        "wall_min": min(r["wall"] for r in rounds),
        "wall_max": max(r["wall"] for r in rounds),
        "cpu": median(lambda r: r["cpu"]),
        "cpu_per_gib": median(lambda r: r["cpu"]) * GIB / size,
        "peak_mib": median(lambda r: r["peak_kib"]) / 1024,
    }


def judge(goal, told):
    """(what was measured, whether the goal is met) or None where a contender is missing."""
    peers = [told[name] for name in goal.peers if name in told]
    if goal.ours not in told or len(peers) != len(goal.peers):
        return None
    ours = told[goal.ours][goal.figure]
    measured = ours / min(peer[goal.figure] for peer in peers) if peers else ours
    return measured, measured <= goal.factor


# --- telling --------------------------------------------------------------------------------------


def first_line(*argv):
    try:
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return "none"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def folder_facts(folder):
    """Its file system, and how fast that takes 256 MiB for good."""
    probe = folder / "probe"
    begin = time.monotonic()
    with open(probe, "wb") as out:
        for _ in range(64):
            out.write(bytes(4 * servers.MIB))
        out.flush()
        os.fsync(out.fileno())
    rate = 256 / (time.monotonic() - begin)
    probe.unlink()
    return {"file_system": first_line("stat", "-f", "-c", "%T", folder), "write_and_fsync_mib_s": round(rate)}


def machine(work, disk):
    cpu = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 20), 1),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "dir": folder_facts(work),
        "disk": folder_facts(disk),
        "tcp_congestion_control": first_line("cat", "/proc/sys/net/ipv4/tcp_congestion_control"),
        "load": [round(x, 2) for x in os.getloadavg()],
    }


def versions(bench):
    def of_python(venv, name):
        return first_line(venv / "bin/python", "-c", f"import importlib.metadata as m; print(m.version({name!r}))")

    p = bench.programs
    return {
        "fvprefetch": first_line(p.of_build("fvprefetch"), "--version")
        + " (" + first_line("git", "-C", TOP, "describe", "--always", "--dirty") + ")",
        "curl": " ".join(first_line("curl", "--version").split()[:2]),
        "aria2c": first_line("aria2c", "--version"),
        "huggingface_hub": of_python(p.hf, "huggingface_hub"),
        "huggingface_hub with hf_transfer": of_python(p.hf_transfer, "huggingface_hub")
        + " and " + of_python(p.hf_transfer, "hf_transfer"),
        "nginx": first_line("/usr/sbin/nginx", "-v"),
        "openssl": first_line("openssl", "version"),
    }  # fmt: skip


def print_case(case, told, failed, goals, load):
    print(f"\n== {case.title}")
    if case.left_out:
        print(f"   left out: {case.left_out}")
        return
    reference = told.get(case.reference)
    width = max(len(contender.name) for contender in case.contenders)
    digits = 4 if reference and reference["wall"] < 0.1 else 2
    columns = f"{'wall s':>7} {'(min .. max)':>16} {'CPU s':>7} {'CPU s/GiB':>9} {'peak MiB':>8} {'to ours':>8}"
    print(f"{'contender':{width}}  {columns}")
    for contender in case.contenders:
        if contender.name in failed:
            print(f"{contender.name:{width}}  failed: {failed[contender.name][:120]}")
            continue
        f = told[contender.name]
        spread = f"({f['wall_min']:.{digits}f} .. {f['wall_max']:.{digits}f})"
        ratio = f"{f['wall'] / reference['wall']:.2f}" if reference else ""
        print(
            f"{contender.name:{width}}  {f['wall']:7.{digits}f} {spread:>16} {f['cpu']:7.{digits}f}"
            f" {f['cpu_per_gib']:9.2f} {f['peak_mib']:8.1f} {ratio:>8}"
        )
    for goal in goals:
        verdict = {True: "met", False: "NOT met", None: "not measured"}[goal["met"]]
        measured = "" if goal["measured"] is None else f" {goal['measured']:.3g},"
        print(f"   goal: {goal['goal']}:{measured} {verdict}")
    print(f"   load of the machine: {load[0]:.1f} before, {load[1]:.1f} after", flush=True)


def write_results(output, results):
    (output / "compare.json").write_text(json.dumps(results, indent=1) + "\n")
    with open(output / "compare.csv", "w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["case", "contender", "round", "bytes", "wall_s", "cpu_s", "peak_kib"])
        for case in results["cases"]:
            for name, rounds in case.get("rounds", {}).items():
                for number, r in enumerate(rounds, 1):
                    table.writerow(
                        [case["case"], name, number, case["bytes"], r["wall"], round(r["cpu"], 6), r["peak_kib"]]
                    )


def room_in_memory(size):
    """/dev/shm when it takes the files that are served, those that arrive, and as much again."""
    memory = Path("/dev/shm")
    fits = memory.is_dir() and shutil.disk_usage(memory).free > 6 * size * servers.MIB
    available = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    return memory if fits and available > 6 * size * servers.MIB else None


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench/compare", description="fvprefetch against its peers, in one table.")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--cases", default=",".join(Bench.CASES), help="some of " + ",".join(Bench.CASES))
    parser.add_argument(
        "--dir",
        type=Path,
        help="where files land (default: /dev/shm when it has room; else, and for the -disk cases, the output folder)",
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file; others follow (1024)")
    parser.add_argument(
        "--output", type=Path, default=TOP / "build/bench", help="for compare.json, compare.csv (build/bench)"
    )
    parser.add_argument("--build", type=Path, default=TOP / "build/bench/tree", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.cases = arguments.cases.split(",")
    unknown = set(arguments.cases) - set(Bench.CASES)
    if unknown or arguments.rounds < 1 or not 64 <= arguments.size <= 16384:
        parser.error(
            f"no such case: {', '.join(sorted(unknown))}" if unknown else "--rounds from 1, --size from 64 to 16384"
        )
    arguments.build, arguments.output = arguments.build.resolve(), arguments.output.resolve()
    arguments.dir = (arguments.dir or room_in_memory(arguments.size) or arguments.output).resolve()
    return arguments


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        work, disk = (
            Path(tempfile.mkdtemp(prefix="fvp-compare-", dir=folder)) for folder in (arguments.dir, arguments.output)
        )
        for folder in (work, disk):
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bench = Bench(arguments, work, disk, stack)
        results = {
            "command": " ".join(["bench/compare", *sys.argv[1:]]),
            "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "rounds": arguments.rounds,
            "machine": machine(work, disk),
            "versions": versions(bench),
            "cases": [],
        }
        m = results["machine"]
        print(
            f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}, Linux {m['kernel']}, "
            f"load {m['load'][0]}\n"
            f"files land on {m['dir']['file_system']} ({m['dir']['write_and_fsync_mib_s']} MiB/s with fsync), "
            f"those of the -disk cases on {m['disk']['file_system']} ({m['disk']['write_and_fsync_mib_s']} MiB/s)\n"
            f"fvprefetch syncs what it publishes; the others do not\n"
            + "\n".join(f"  {name}: {version}" for name, version in results["versions"].items())
        )
        print(
            f"median of {arguments.rounds} rounds; every run ends with the files there and their SHA-256 checked",
            flush=True,
        )
        bench.make(dict.fromkeys(name for key in arguments.cases for name in Bench.CASES[key]))
        bench.serve()
        for key in arguments.cases:
            case, before = bench.case(key), os.getloadavg()[0]
            rounds, failed = ({}, {}) if case.left_out else measure(bench, case)
            told = {name: figures(r, case.bytes) for name, r in rounds.items() if r and name not in failed}
            goals = []
            for goal in case.goals:
                judged = judge(goal, told)
                goals.append({"goal": goal.text(), "measured": judged and judged[0], "met": judged and judged[1]})
            load = (before, os.getloadavg()[0])
            print_case(case, told, failed, goals, load)
            results["cases"].append(
                {"case": key, "title": case.title, "bytes": case.bytes, "left_out": case.left_out or None, "load": load,
                 "figures": told, "failed": failed, "goals": goals, "rounds": rounds}
            )  # fmt: skip
            write_results(arguments.output, results)  # what there is survives an interruption
    goals = [goal for case in results["cases"] for goal in case["goals"]]
    print(
        f"\n{sum(g['met'] is True for g in goals)} of {len(goals)} goals met; {time.monotonic() - begin:.0f} s; "
        f"every round: {arguments.output}/compare.json, compare.csv"
    )


if __name__ == "__main__":
    main()

"""Locks under contention on several file systems; run by bench/contention, which installs and builds."""

import argparse
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import goals
import metadata
import places as where
import plots

TOP = Path(__file__).resolve().parents[2]
BLOCKING = ["flock", "ofd"]
LOCKS = [*BLOCKING, "lease", "auto", "FileLock", "SoftFileLock"]
PLACES = ["disk", "tmpfs", "nfs", "gluster"]

# How much is measured. Between nodes an acquisition takes longer, so there are fewer; a hundred rounds of
# "N want one file" are what the goal asks for.
LOCAL = {"repeats": 3, "cold-rounds": 30, "hand-offs": 300, "acquisitions": 50, "case-seconds": 1.5,
         "load-seconds": 40, "wait-seconds": 10}  # fmt: skip
NETWORK = {"repeats": 2, "cold-rounds": 100, "hand-offs": 60, "acquisitions": 5, "case-seconds": 5,
           "load-seconds": 20, "wait-seconds": 5}  # fmt: skip
QUICK_LOCAL = {"repeats": 2, "case-seconds": 1, "load-seconds": 15, "wait-seconds": 5}
QUICK_NETWORK = {"case-seconds": 4, "load-seconds": 10, "wait-seconds": 3}

COLUMNS = [  # of the table: figure, title, format
    ("cold_ms", "cold ms", "{:.1f}"),
    ("after_publication_ms", "after", "{:.1f}"),
    ("after_publication_ms_max", "max", "{:.1f}"),
    ("duplicate_downloads", "twice", "{:.0f}"),
    ("warm_ms", "warm ms", "{:.1f}"),
    ("hand_off_p50_ms", "p50 ms", "{:.3f}"),
    ("hand_off_p99_ms", "p99", "{:.2f}"),
    ("hand_off_max_ms", "max", "{:.1f}"),
    ("load_s", "load s", "{:.2f}"),
    ("load_done", "done", "{:.2f}"),
    ("longest_over_fair", "wait/fair", "{:.2f}"),
    ("least_share", "least", "{:.2f}"),
    ("waiter_cpu_percent", "cpu %", "{:.3f}"),
    ("operations", "calls", "{:.1f}"),
    ("violations", "viol.", "{:.0f}"),
]


def contend(place, arguments):
    """One place: its results, as the program wrote them; those of the collective path are put to the others."""
    local = isinstance(place, where.Local)
    amount = dict(LOCAL if local else NETWORK)
    if arguments.quick:
        amount |= QUICK_LOCAL if local else QUICK_NETWORK
    if arguments.repeats:
        amount["repeats"] = arguments.repeats
    options = [word for name, value in amount.items() for word in (f"--{name}", value)]
    end = time.monotonic() + arguments.time_cap

    def up_to(most):
        return [n for n in arguments.ranks if n <= most]

    few = up_to(place.most_blocking)
    many = [n for n in arguments.ranks if n not in few]
    with place.up():
        runs = []
        for name, ranks, processes, primitives in (
            ("locks", few, 2, LOCKS),
            ("many", many, 2, [lock for lock in LOCKS if lock not in BLOCKING]),
            ("collective", up_to(place.collective_ranks), place.collective_ranks, ["collective"]),
        ):
            if not ranks:
                continue
            left = max(60, int(end - time.monotonic()))
            results = arguments.output / f"contention-{place.key}-{name}"
            for suffix in ("csv", "json"):
                results.with_suffix(f".{suffix}").unlink(missing_ok=True)
            chosen = ["--ranks", ",".join(map(str, ranks)), "--primitives", ",".join(primitives)]
            chosen += ["--python", place.python, "--time-cap", left]
            code = place.contend(str(processes), [*chosen, *options], results, left + 300)
            try:
                runs.append(json.loads(results.with_suffix(".json").read_text()))
            except (OSError, ValueError):
                raise where.LeftOut(f"the program ended with {code} and without results") from None
            if code != 0:
                runs[-1]["remarks"].append(f"the program ended with {code}")
    whole = runs[0]
    for run in runs[1:]:
        whole["rows"] += run["rows"]
        whole["remarks"] += run["remarks"]
    whole["rows"].sort(key=lambda row: row["ranks"])
    return {"place": place.key, "title": place.title, **whole}


def print_place(result):
    machine = result["machine"]
    print(f"\n== {result['title']}: {result['file_system']} ({result['mount_options']})")
    print(f"   {machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}; load: each contender"
          f" {result['acquisitions']} times, {result['hold_us'] / 1000:g} ms long")  # fmt: skip
    print(f"{'N':>4} {'':13}" + "".join(f"{title:>10}" for _, title, _ in COLUMNS))
    for row in result["rows"]:
        cells = [form.format(row["figures"][key]) if key in row["figures"] else "-" for key, _, form in COLUMNS]
        print(f"{row['ranks']:4} {row['primitive']:13}" + "".join(f"{cell:>10}" for cell in cells))
    for remark in dict.fromkeys(result["remarks"] + [r for row in result["rows"] for r in row["remarks"]]):
        print(f"   {remark}")
    sys.stdout.flush()


def write_results(output, results):
    (output / "contention.json").write_text(json.dumps(results, indent=1) + "\n")
    names = sorted({name for r in results["places"] for row in r["rows"] for name in row["figures"]})
    with open(output / "contention.csv", "w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["place", "file_system", "ranks", "primitive", *names])
        for r in results["places"]:
            for row in r["rows"]:
                table.writerow([r["place"], r["file_system"], row["ranks"], row["primitive"],
                                *(f"{row['figures'][n]:.6g}" if n in row["figures"] else "" for n in names)])  # fmt: skip


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench/contention", description="Locks under contention, in one table.")
    parser.add_argument("--quick", action="store_true", help="few rounds, for 1, 2, 8 and 64 contenders")
    parser.add_argument("--places", default=",".join(PLACES), help="some of " + ",".join(PLACES))
    parser.add_argument("--ranks", help="numbers of contenders (1,2,4,8,16,32,64)")
    parser.add_argument("--repeats", type=int, help="the primitives take turns so often (3; between nodes 2)")
    parser.add_argument("--time-cap", type=int, default=1800, help="seconds for each place (1800)")
    parser.add_argument("--output", type=Path, default=TOP / "build/bench",
                        help="for the results and plots, and what is taken for the local disk (build/bench)")  # fmt: skip
    parser.add_argument("--plots-of", type=Path, metavar="CSV", help="only makes the plots anew, beside CSV")
    parser.add_argument("--build", type=Path, default=TOP / "build/bench/tree", help=argparse.SUPPRESS)
    parser.add_argument("--python", type=Path, default=TOP / "build/bench/filelock/bin/python", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.places = arguments.places.split(",")
    if set(arguments.places) - set(PLACES):
        parser.error("no such place")
    arguments.ranks = [int(n) for n in (arguments.ranks or ("1,2,8,64" if arguments.quick else "1,2,4,8,16,32,64")).split(",")]
    arguments.build, arguments.output = arguments.build.resolve(), arguments.output.resolve()
    return arguments


def main():
    arguments = parse_arguments()
    if arguments.plots_of:
        plots.draw(plots.read(arguments.plots_of), arguments.plots_of.parent)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    begin = time.monotonic()
    version = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    results = {
        "command": " ".join(["bench/contention", *sys.argv[1:]]).split(" --build")[0],
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": version.stdout.strip(),
        "places": [],
        "left_out": {},
    }
    for place in where.places(arguments.build, arguments.output, arguments.python):
        if place.key not in arguments.places:
            continue
        print(f"\n{place.title} ...", flush=True)
        try:
            results["places"].append(contend(place, arguments))
        except where.LeftOut as error:
            results["left_out"][place.key] = str(error)
            print(f"   left out: {error}", flush=True)
            continue
        write_results(arguments.output, results)  # what there is survives an interruption
    print("\n" + "=" * 40)
    for result in results["places"]:
        print_place(result)
    results["goals"] = goals.judge(results["places"])
    goals.tell(results["goals"])
    results["metadata"] = metadata.table(results["places"])
    metadata.tell(results["metadata"])
    write_results(arguments.output, results)
    plots.draw(plots.read(arguments.output / "contention.csv"), arguments.output)
    print(f"\n{time.monotonic() - begin:.0f} s; {arguments.output}/contention.json, .csv, and a plot for each place")


if __name__ == "__main__":
    main()

"""What a job asks of the metadata server: measured up to 64 ranks, by formula beyond.

with MPI          first + (nodes - 1) x leader             ranks that lead no node ask nothing
without MPI       ranks x (look + take and find a hit)     each process for itself (a job array)
FileLock each     ranks x (the same with Python's FileLock)    as FastVideo's original: every rank takes a lock
                  and asks the Hub. It is FileLock alone that was measured; what the original asks of the folder
                  besides (huggingface_hub's look into its cache) would come on top

The figures are calls on the folder, counted by strace, of a cold run with an instant download; a client's
memory answers some of them. A download that takes long adds the looks of those who wait, which the last
column gives for one who waits for 60 s: ours look at growing intervals, filelock twenty times a second.
"""

import math

NODE = 8  # ranks of a node, in the extrapolation
CALLS_OF_A_LOOK = {"auto": 4, "FileLock": 3}


def looks(seconds):
    """LockWait's tries while it waits: pauses of an eighth of the wait so far, with jitter 3/4 of that, 1 ms to 1 s."""
    short = 0.008 / 0.00075
    growing = math.log(min(seconds, 8) / 0.008) / math.log(1 + 0.75 / 8)
    return short + growing + max(0, seconds - 8) / 0.75


def figure(result, primitive, name):
    """Of the most ranks that it was measured for."""
    rows = [r for r in result["rows"] if r["primitive"] == primitive and name in r["figures"]]
    return max(rows, key=lambda r: r["ranks"])["figures"][name] if rows else None


def table(places):
    tables = []
    for result in places:
        first = figure(result, "collective", "operations_first")
        leader = figure(result, "collective", "operations_leader")
        alone, each = figure(result, "auto", "operations"), figure(result, "FileLock", "operations")
        if None in (first, leader, alone, each):
            continue
        rows = []
        for ranks in (1, 8, 64, 512, 1024, 10_000):
            nodes = math.ceil(ranks / NODE)
            rows.append({"ranks": ranks, "nodes": nodes, "with_mpi": round(first + (nodes - 1) * leader),
                         "without_mpi": round(ranks * alone), "filelock_each": round(ranks * each)})  # fmt: skip
        tables.append({"place": result["place"], "title": result["title"], "first": first, "leader": leader,
                       "alone": alone, "each": each, "rows": rows})  # fmt: skip
    return tables


def tell(tables):
    for t in tables:
        print(f"\n== calls on the folder for a job, {t['title']} (beyond 64 ranks by formula, {NODE} ranks a node)")
        print(f"{'ranks':>7}{'nodes':>7}{'with MPI':>10}{'without MPI':>13}{'FileLock each':>15}{'locks, requests: with':>24}"
              f"{'without':>9}{'each':>8}")  # fmt: skip
        for row in t["rows"]:
            print(f"{row['ranks']:7}{row['nodes']:7}{row['with_mpi']:10}{row['without_mpi']:13}{row['filelock_each']:15}"
                  f"{'1, 1':>24}{'1, 1':>9}{row['ranks']:>8}")  # fmt: skip
        print(f"   with MPI: {t['first']:.0f} + {t['leader']:.0f} x (nodes - 1); without: {t['alone']:.1f} x ranks;"
              f" FileLock each: {t['each']:.1f} x ranks")  # fmt: skip
    if tables:
        print("   FileLock each: as FastVideo's original does it, counted with Python's FileLock alone")
        ours, theirs = looks(60) * CALLS_OF_A_LOOK["auto"], 60 * 20 * CALLS_OF_A_LOOK["FileLock"]
        print(f"   while a download takes 60 s, each that waits adds: with MPI 0, without {ours:.0f}, filelock {theirs:.0f}")

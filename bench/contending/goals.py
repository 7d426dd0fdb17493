"""The goals of the issue that asked for the benchmark, and whether a run meets them."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    text: str
    place: str
    figure: str
    limit: float
    ranks: int = 64  # 0: the most there are
    primitive: str = "auto"
    peer: str = ""  # the limit is a ratio to this primitive's figure, repeat by repeat of the same run
    rounds: int = 0  # of the cold ones it takes so many; with fewer it is not measured


GOALS = [
    Goal("hand-off, local disk, 64 contenders: p50 <= 1 ms", "disk", "hand_off_p50_ms", 1),
    Goal("hand-off, local disk, 64 contenders: p99 <= 10 ms", "disk", "hand_off_p99_ms", 10),
    Goal("64 x 50 acquisitions of 1 ms: <= 1.15 x blocking flock", "disk", "load_s", 1.15, peer="flock"),
    Goal("64 x 50 acquisitions of 1 ms: <= 0.8 x Python filelock", "disk", "load_s", 0.8, peer="FileLock"),
    Goal("longest wait among them <= 1.5 x the fair share", "disk", "longest_over_fair", 1.5),
    Goal("cold, instant download, 64: the last one has it <= 25 ms after publication", "disk", "after_publication_ms", 25),
    Goal("calls of a rank that leads no node: 0", "disk", "operations_follower", 0, 0, "collective"),
    Goal("CPU of a waiter <= 0.3 %", "disk", "waiter_cpu_percent", 0.3),
    Goal("NFSv4.1, two nodes: hand-off p50 <= 100 ms", "nfs", "hand_off_p50_ms", 100, 2),
    Goal("NFSv4.1, two nodes: no duplicate download in 100 rounds", "nfs", "duplicate_downloads", 0, 2, rounds=100),
    Goal("GlusterFS, two nodes: hand-off p50 <= 100 ms", "gluster", "hand_off_p50_ms", 100, 2),
    Goal("GlusterFS, two nodes: no duplicate download in 100 rounds", "gluster", "duplicate_downloads", 0, 2, rounds=100),
]  # fmt: skip


def measured(goal, result):
    rows = [r for r in result["rows"] if r["primitive"] == goal.primitive and goal.figure in r["figures"]]
    if goal.ranks:
        rows = [r for r in rows if r["ranks"] == goal.ranks]
    if not rows:
        return None
    row = max(rows, key=lambda r: r["ranks"])
    if row["figures"].get("cold_rounds", 0) < goal.rounds:
        # One that is missed is missed, after however few.
        return row["figures"][goal.figure] if row["figures"][goal.figure] > goal.limit else None
    if not goal.peer:
        return row["figures"][goal.figure]
    peers = [r for r in result["rows"] if r["primitive"] == goal.peer and r["ranks"] == row["ranks"]]
    pairs = list(zip(row["each"].get(goal.figure, []), peers[0]["each"].get(goal.figure, []) if peers else []))
    return statistics.median(ours / theirs for ours, theirs in pairs) if pairs else None


def judge(places):
    by_key = {result["place"]: result for result in places}
    judged = []
    for goal in GOALS:
        value = measured(goal, by_key[goal.place]) if goal.place in by_key else None
        judged.append({"goal": goal.text, "measured": value, "met": None if value is None else value <= goal.limit})
    # Of all rows, ours and the kernel's; whether a lock excludes is no question of degree.
    for result in places:
        for primitive in ("lease", "auto"):
            rows = [r["figures"].get("violations", 0) for r in result["rows"] if r["primitive"] == primitive]
            if rows:
                text = f"{result['title']}, {primitive}: never two holders at once"
                judged.append({"goal": text, "measured": sum(rows), "met": sum(rows) == 0})
    return judged


def tell(judged):
    print("\n== goals")
    for goal in judged:
        verdict = {True: "met", False: "NOT met", None: "not measured"}[goal["met"]]
        value = "" if goal["measured"] is None else f"{goal['measured']:.3g}"
        print(f"   {goal['goal']:78} {value:>8}  {verdict}")

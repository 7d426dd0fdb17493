"""A plot for each place, from the CSV: what a reader compares at a glance."""

import csv

STYLES = {
    "flock": ("#777777", "--", "flock, blocking"),
    "ofd": ("#bbbbbb", "--", "OFD, blocking"),
    "lease": ("#2a78b8", "-", "lease"),
    "auto": ("#c8401e", "-", "auto (flock + lease)"),
    "FileLock": ("#3a8f3a", ":", "filelock.FileLock"),
    "SoftFileLock": ("#9a7ab8", ":", "filelock.SoftFileLock"),
    "collective": ("#000000", "-.", "MPI: rank 0 + broadcast"),
}
PANELS = [
    ("cold_ms", "cold: all have the path, ms"),
    ("hand_off_p50_ms", "hand-off, median, ms"),
    ("hand_off_p99_ms", "hand-off, 99 %, ms"),
    ("load_s", "N x acquisitions of 1 ms, s"),
    ("longest_over_fair", "longest wait / fair share"),
    ("operations", "calls on the folder for each rank"),
]
NAMES = {"disk": "local disk", "tmpfs": "tmpfs", "nfs": "NFSv4.1, two nodes", "gluster": "GlusterFS, two nodes"}


def read(path):
    with open(path, newline="") as text:
        return list(csv.DictReader(text))


def draw(rows, folder):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "contention"  # the same CSV gives the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # letters as letters: half the size
    from matplotlib import pyplot

    for place in dict.fromkeys(row["place"] for row in rows):
        figure, panels = pyplot.subplots(2, 3, figsize=(12, 6.4), sharex=True)
        for panel, (column, title) in zip(panels.flat, PANELS):
            for primitive, (colour, line, label) in STYLES.items():
                points = [(int(r["ranks"]), float(r[column])) for r in rows
                          if r["place"] == place and r["primitive"] == primitive and r.get(column)]  # fmt: skip
                # A figure of nothing has no place on a logarithmic axis.
                points = sorted(p for p in points if p[1] > 0)
                if points:
                    panel.plot(*zip(*points), color=colour, linestyle=line, marker="o", markersize=3, label=label)
            panel.set_title(title, fontsize=10)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.grid(True, which="major", alpha=0.3)
            panel.xaxis.set_major_formatter("{x:.0f}")
        for panel in panels[-1]:
            panel.set_xlabel("contenders")
        handles = {}
        for panel in panels.flat:
            handles |= dict(zip(*reversed(panel.get_legend_handles_labels())))
        figure.suptitle(f"Locks under contention: {NAMES.get(place, place)}")
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=4, fontsize=9, frameon=False)
        figure.tight_layout(rect=(0, 0.08, 1, 1))
        figure.savefig(folder / f"contention-{place}.svg", metadata={"Date": None})
        figure.savefig(folder / f"contention-{place}.png", dpi=110, metadata={"Software": None})
        pyplot.close(figure)

"""N processes of the real huggingface_hub that start at once: python_racers.py N REPO CACHE

Imports first and forks then, says "ready", and goes when standard input ends. One line of JSON per process:
{"path": ...} or {"error": ...}. Ends with the number of those that failed.
"""

import json
import os
import sys

import huggingface_hub

count, repo, cache = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def race():
    sys.stdin.read()
    try:
        told = {"path": huggingface_hub.snapshot_download(repo, cache_dir=cache)}
    except BaseException as error:
        told = {"error": f"{type(error).__name__}: {error}"[:2000]}
    os.write(1, json.dumps(told).encode() + b"\n")  # one write: lines of two processes do not mix
    os._exit("error" in told)


children = []
for _ in range(count):
    child = os.fork()
    if child == 0:
        race()
    children.append(child)
os.write(1, b"ready\n")
failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
sys.exit(failed)

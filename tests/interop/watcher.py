"""Hashes every file of a cache that a reader could open, again and again: watcher.py CACHE EXPECTED

EXPECTED is a JSON file: {"commit": ..., "files": {path in the repository: sha256}}. Says "ready" after the first
round, ends after the round in which standard input ended, and prints {"rounds", "hashed", "wrong"} as JSON.
"""

import hashlib
import json
import re
import select
import sys
from pathlib import Path

cache = Path(sys.argv[1])
expected = json.loads(Path(sys.argv[2]).read_text())
told = {"rounds": 0, "hashed": 0, "wrong": []}


def digests_of(data):
    return {hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}


def read(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:  # Python makes a link anew by unlink and symlink
        return None


def check(path, right):
    data = read(path)
    if data is None:
        return
    told["hashed"] += 1
    if not right(data):
        told["wrong"].append(f"{path}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


def look():
    for path in cache.glob("*--*/blobs/*"):
        # Private files have names that no reader opens.
        if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", path.name):
            check(path, lambda data: path.name in digests_of(data))
    for snapshot in cache.glob("*--*/snapshots/*"):
        if snapshot.name != expected["commit"]:
            told["wrong"].append(f"{snapshot}: no such commit")
        for path in snapshot.rglob("*"):
            if not path.is_dir():
                digest = expected["files"].get(str(path.relative_to(snapshot)))
                check(path, lambda data: hashlib.sha256(data).hexdigest() == digest)
    for path in cache.glob("*--*/refs/*"):
        # snapshot_download writes a ref in place: for a moment it is empty.
        check(path, lambda data: data.decode() in ("", expected["commit"]))
    told["rounds"] += 1


look()
print("ready", flush=True)
while True:
    over, _, _ = select.select([sys.stdin], [], [], 0)
    look()
    if over:
        break
print(json.dumps(told), flush=True)

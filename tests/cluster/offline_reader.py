"""Loads what a job prefetched, as its consumers do, with no network: run on each node by cluster_test.py.

The argument is a JSON file: {"hub": [{repo_id, repo_type, filename, sha256}], "snapshots": [arguments of
snapshot_download], "snapshot_paths": [where they must be], "eval_cache": {path in $FASTVIDEO_EVAL_CACHE: sha256},
"paths": {path: sha256}}. Any difference ends it with exit 1.
"""

import hashlib
import json
import os
import pathlib
import socket
import sys

if os.environ.get("HF_HUB_OFFLINE") != "1":
    sys.exit("HF_HUB_OFFLINE is not 1: this would prove nothing")

import huggingface_hub  # reads the environment when it is imported


def check_file(path, sha256):
    actual = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    if actual != sha256:
        sys.exit(f"{path}: sha256 {actual}, expected {sha256}")


expected = json.loads(pathlib.Path(sys.argv[1]).read_text())
for file in expected["hub"]:
    path = huggingface_hub.hf_hub_download(file["repo_id"], file["filename"], repo_type=file["repo_type"])
    check_file(path, file["sha256"])
snapshots = [huggingface_hub.snapshot_download(**arguments) for arguments in expected["snapshots"]]
for path, expected_path in zip(snapshots, expected["snapshot_paths"]):
    if not os.path.samefile(path, expected_path):
        sys.exit(f"huggingface_hub's snapshot is {path}, fvprefetch said {expected_path}")
eval_cache = pathlib.Path(os.environ["FASTVIDEO_EVAL_CACHE"])
for path, sha256 in expected["eval_cache"].items():
    check_file(eval_cache / path, sha256)
for path, sha256 in expected["paths"].items():
    check_file(path, sha256)
print(f"{socket.gethostname()}: {len(expected['hub']) + len(expected['eval_cache'])} files loaded offline")

"""Calls into the real huggingface_hub, one per line of JSON on standard input, one line of JSON back.

{"call": "snapshot_download", "args": {...}, "umask": 18}  ->  {"value": ...} or {"error": class, "text": ...}
Runs in a virtual environment of the tests, once for each environment (huggingface_hub reads it at import).
"""

import json
import os
import sys

import huggingface_hub
from huggingface_hub import file_download


def scan_cache_dir(cache_dir):
    info = huggingface_hub.scan_cache_dir(cache_dir)
    return {
        "warnings": [str(w) for w in info.warnings],
        "repos": {
            r.repo_id: {rev.commit_hash: sorted(rev.refs) for rev in r.revisions} for r in info.repos
        },
    }


def try_to_load_from_cache(**args):
    found = huggingface_hub.try_to_load_from_cache(**args)
    return "no_exist" if found is file_download._CACHED_NO_EXIST else found


CALLS = {
    "snapshot_download": huggingface_hub.snapshot_download,
    "hf_hub_download": huggingface_hub.hf_hub_download,
    "scan_cache_dir": scan_cache_dir,
    "try_to_load_from_cache": try_to_load_from_cache,
}


def answer(asked):
    os.umask(asked.get("umask", 0o022))
    try:
        return {"value": CALLS[asked["call"]](**asked["args"])}
    except Exception as error:  # the test decides which are right
        return {"error": type(error).__name__, "text": str(error)}


# What the library prints must not be taken for an answer.
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), file=answers, flush=True)

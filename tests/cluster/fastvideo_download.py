"""FastVideo's way to one file of an address, written down in our own words (eval-contract sections 3 and 4), to show
what happens to it when two nodes do it at once: the lock lies in the temporary directory of each node, the temporary
file beside the target in the cache that both share.

    python fastvideo_download.py URL FINAL_PATH      prints the path when it "has" the file
"""

import hashlib
import os
import pathlib
import sys
import tempfile
import urllib.request

import filelock


def lock_of(key):
    flat = key.replace("/", "-")
    name = hashlib.sha256(flat.encode()).hexdigest() + flat + ".lock"
    return filelock.FileLock(os.path.join(tempfile.gettempdir(), name), mode=0o666)


def ensure(url, final):
    with lock_of(url):
        if final.exists():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        unfinished = final.with_name(final.name + ".tmp")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url) as answer, open(unfinished, "wb", buffering=0) as file:
            while chunk := answer.read(1 << 16):
                file.write(chunk)
        unfinished.rename(final)
        return final


print(ensure(sys.argv[1], pathlib.Path(sys.argv[2])))

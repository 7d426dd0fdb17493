"""Keeps the picture of the folders true: who may include whom, and where a library may be named.

    cli -> cluster -> prefetch -> source, cache, transfer -> base      mpi -> cluster

A folder includes what lies below it; never upward, never sideways, except that source/ sees the seam
transfer/transport.h and retry.h.
"""

import re
import sys
from pathlib import Path

BELOW = {
    "base": set(),
    "source": {"base"},
    "cache": {"base"},
    "transfer": {"base"},
    "prefetch": {"base", "source", "cache", "transfer"},
    "cluster": {"base", "prefetch"},
    "mpi": {"base", "prefetch", "cluster"},
    # module.h is the door between the command and its MPI module; it has no mpi.h.
    "cli": {"base", "prefetch", "cluster"},
}
# source/manifest_input.h: reading standard input in slices is the command's business as well.
ALSO = {("source", "transfer/transport.h"), ("source", "transfer/retry.h"), ("cli", "mpi/module.h"), ("cli", "source/manifest_input.h")}

# Library header -> the files that may include it.
ONLY_IN = {
    r"^mpi\.h$": r"^(src/mpi/|include/fvprefetch/mpi\.h)",
    r"^curl/": r"^src/transfer/curl_transport\.cpp|^src/base/url\.cpp",  # one URL parser: see base/url.h
    r"^archive": r"^src/cache/(unpack|decompress)\.cpp",
    r"^openssl/": r"^src/base/digest\.cpp",
    r"^tl/": r"^include/fvprefetch/error\.h",
    r"^(spdlog|fmt|CLI)/": r"^src/cli/",
    r"^nlohmann/": r"^src/(source|cache|transfer|prefetch|cluster|cli)/",
}
# Calls that one file owns.
ONLY_CALLED_IN = {
    r"\b(std::|::)?(secure_)?getenv\s*\(": r"^src/base/environment\.cpp",
    r"(?<![\w.>:])(::|std::)?rename\s*\(": r"^src/base/posix\.cpp",
    r"\bsleep_for\s*\(|\busleep\s*\(|\bnanosleep\s*\(": r"^src/(base/clock\.cpp|mpi/mpi_collective\.cpp)",
}


def main(top):
    wrong = []
    files = sorted(p for folder in ("src", "include") for p in (top / folder).rglob("*") if p.suffix in (".h", ".cpp"))
    for path in files:
        name = path.relative_to(top).as_posix()
        folder = name.split("/")[1] if name.startswith("src/") else None
        text = path.read_text()
        if path.suffix == ".h" and "#pragma once" not in text:
            wrong.append(f"{name}: no #pragma once")
        for number, line in enumerate(text.splitlines(), 1):
            include = re.match(r'\s*#\s*include\s+[<"]([^>"]+)[>"]', line)
            if not include:
                code = line.split("//")[0]
                for call, owner in ONLY_CALLED_IN.items():
                    if re.search(call, code) and not re.search(owner, name):
                        wrong.append(f"{name}:{number}: {code.strip()}  (only in {owner})")
                continue
            header = include.group(1)
            target = header.split("/")[0]
            if target in BELOW and target != folder and (folder, header) not in ALSO:
                if folder is None:
                    wrong.append(f"{name}:{number}: a public header includes {header}")
                elif target not in BELOW[folder]:
                    wrong.append(f"{name}:{number}: {folder}/ may not include {header}")
            for pattern, owner in ONLY_IN.items():
                if re.search(pattern, header) and not re.search(owner, name):
                    wrong.append(f"{name}:{number}: <{header}> only in {owner}")
    for line in wrong:
        print(line)
    print(f"{len(files)} files checked, {len(wrong)} wrong")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[2]))

#!/usr/bin/env bash
# What torch writes (torch.save, torch.jit.save; here silero_vad.jit of the PyPI wheel silero-vad 6.2.3,
# 2.3 MB with 126 members) has a zip64 end record and its locator, 76 bytes, between the central directory and
# the end record, although no field of the end record needs them: count, length and offset are there in full.
# APPNOTE 4.4.1.4 has zip64 begin where a field is too small and is set to 0xFFFF or 0xFFFFFFFF; a reader
# that looks for the records only then, and takes the directory to end where the end record begins, looks 76
# bytes too far and calls every checkpoint of today damaged. The locator has to be looked for always, as
# Python's zipfile does.
#
#   members 126, directory of 14132 bytes at 2258296, ends at 2272428
#   zip64 end record at 2272428, its locator at 2272484, end record at 2272504
#   0xFFFF or 0xFFFFFFFF in the end record: no
#
# Exits 1 when the behaviour has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$work" silero-vad==6.2.3

"$work/venv/bin/python" - "$work" <<'PYTHON'
import glob
import struct
import sys
import zipfile

[wheel] = glob.glob(sys.argv[1] + "/silero_vad-*.whl")
data = zipfile.ZipFile(wheel).read("silero_vad/data/silero_vad.jit")
end = data.rindex(b"PK\5\6")
members, length, offset = struct.unpack_from("<HII", data, end + 10)
locator = data.rfind(b"PK\6\7")
record = data.rfind(b"PK\6\6")
print(f"members {members}, directory of {length} bytes at {offset}, ends at {offset + length}")
print(f"zip64 end record at {record}, its locator at {locator}, end record at {end}")
full = members == 0xFFFF or length == 0xFFFFFFFF or offset == 0xFFFFFFFF
print("0xFFFF or 0xFFFFFFFF in the end record:", "yes" if full else "no")
same = record == offset + length and locator == record + 56 and end == locator + 20 and not full
if not same:
    print("changed: the records are as APPNOTE has them", file=sys.stderr)
sys.exit(0 if same else 1)
PYTHON

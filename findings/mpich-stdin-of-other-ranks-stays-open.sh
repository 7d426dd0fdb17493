#!/usr/bin/env bash
# MPICH 5.0.2 (PyPI wheel `mpich`): hydra's mpiexec gives standard input to rank 0 alone, as its manual
# says. The other ranks do not get /dev/null, though, but the open end of a pipe that is never
# written to and never closed: a program that reads its standard input on every rank hangs on all
# but rank 0, where Open MPI's other ranks see an empty file.
#
#   $ printf 'two\nlines\n' > in; timeout 10 mpiexec -n 2 ./count < in
#   rank 0 has its end after 10 bytes
#   rank 1 reads from pipe              (and then nothing, until timeout ends it: exit 124 or 137)
#
# Exits 1 when the behaviour has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check mpich==5.0.2

cat > "$work/count" <<'PYTHON'
#!/usr/bin/env python3
import os
import stat
rank, size = os.environ["PMI_RANK"], 0
if rank != "0" and stat.S_ISFIFO(os.fstat(0).st_mode):
    print(f"rank {rank} reads from pipe", flush=True)
while data := os.read(0, 4096):
    size += len(data)
print(f"rank {rank} has its end after {size} bytes", flush=True)
PYTHON
chmod +x "$work/count"
printf 'two\nlines\n' > "$work/in"

"$work/venv/bin/mpiexec" --version | sed -n 's/^ *Version: */mpiexec /p'
code=0
timeout -k 5 10 "$work/venv/bin/mpiexec" -n 2 "$work/count" < "$work/in" > "$work/out" 2> "$work/err" || code=$?
sort "$work/out"
echo "exit $code"

grep -q '^rank 0 has its end after 10 bytes$' "$work/out"
if [ "$code" != 0 ] && grep -q '^rank 1 reads from pipe$' "$work/out" && ! grep -q '^rank 1 has its end' "$work/out"; then exit 0; fi
echo "changed: rank 1 is told the end of its standard input" >&2
exit 1

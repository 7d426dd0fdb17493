"""What the end-to-end tests share: a hub of their own, caches of their own, and the built command.

Every test runs the real binary against a real HTTP server on loopback, and asserts on what a user
and a server see: exit code, stdout, files, requests. Run by ctest as
`python3 tests/e2e/x_test.py --build-dir BUILD`; needs the standard library only, except where a test
says that it runs the real huggingface_hub (FVPREFETCH_TEST_PYTHON).
"""

import argparse
import ctypes
import hashlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

BUILD = Path()  # set by main()
TOP = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds until something that must happen counts as hanging


# The launcher of the MPI that the command was built with, and a shell's name for the rank under it.
MPIEXEC = os.environ.get("FVPREFETCH_TEST_MPIEXEC", "mpiexec")
RANK = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def oracle_python():
    """The interpreter of the virtual environment with the real clients; made by tests/run."""
    python = os.environ.get("FVPREFETCH_TEST_PYTHON", "")
    if not python or not os.path.exists(python):
        raise AssertionError("FVPREFETCH_TEST_PYTHON names no interpreter; run through tests/run")
    return python


def say(line):
    """A figure that belongs into the summary of tests/run, too (ctest shows no output of what passes)."""
    print(line, flush=True)
    summary = BUILD / "tests/transfer/summary.txt"
    summary.parent.mkdir(exist_ok=True)
    with open(summary, "a") as out:
        out.write(f"transfer: {line}\n")


def serve_file(data, address="127.0.0.1", family=socket.AF_INET):
    """A server of Python's own on a free port, whatever is asked for: not our hub, and not its mistakes.
    Runs until its shutdown(), or the end of the process."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = family

    server = Server((address, 0), Handler)
    server.thread = threading.Thread(target=server.serve_forever, daemon=True)
    server.thread.start()
    return server


def set_process_name(name):
    """What /proc/PID/comm says; for the main thread to call."""
    PR_SET_NAME = 15
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NAME)")


class Hub:
    """A testhub process that serves `root`."""

    def __init__(self, root, *options):
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        port_file = self.root.parent / f"{self.root.name}.port.json"
        self.process = subprocess.Popen(
            [BUILD / "tests/testhub", "serve", "--root", self.root, "--port-file", port_file, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + PATIENCE
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("testhub did not start: " + self.process.communicate()[1])
            time.sleep(0.01)
        told = json.loads(port_file.read_text())
        self.url, self.cdn_url = told["url"], told["cdn_url"]

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            text = response.read()
        return json.loads(text) if text else None

    def stats(self):
        return self._call("GET", "/_testhub/stats")

    def reset(self):
        self._call("POST", "/_testhub/reset")

    def faults(self, *faults):
        self._call("POST", "/_testhub/faults", list(faults))

    def no_faults(self):
        self._call("DELETE", "/_testhub/faults")

    def put(self, path, data):
        """A file below the served folder: "files/a.bin", "models/org/name/config.json"."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return data

    def file_url(self, path):
        return f"{self.url}/files/{path}"


class EndToEnd(unittest.TestCase):
    """Fresh hub, fresh caches, clean environment for each test."""

    hub_options = ()

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="fvp-e2e-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.hub = self.make_hub()
        self.eval_cache = self.dir / "eval"
        self.hf_cache = self.dir / "hf"
        foreign = ("SSL_CERT", "CURL_CA", "REQUESTS_CA", "SLURM_", "PMI", "OMPI_", "HF_", "HUGGING", "TRANSFORMERS_", "FVPREFETCH_", "PALS_", "FLUX_")
        self.env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(foreign) and "proxy" not in k.lower() and k not in ("TORCH_HOME", "XDG_CACHE_HOME")
        }
        self.env.update(
            HOME=str(self.dir / "home"),
            HF_ENDPOINT=self.hub.url,
            HF_HUB_CACHE=str(self.hf_cache),
            FASTVIDEO_EVAL_CACHE=str(self.eval_cache),
            TMPDIR=str(self.dir / "tmp"),  # FastVideo's locks lie there
            OMPI_ALLOW_RUN_AS_ROOT="1",
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
            OMPI_MCA_rmaps_base_oversubscribe="1",
            PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe",
        )
        (self.dir / "home").mkdir()
        (self.dir / "tmp").mkdir()

    def make_hub(self):
        hub = Hub(self.dir / "site", *self.hub_options)
        self.addCleanup(hub.close)
        return hub

    # --- running ---------------------------------------------------------------------------------

    def command(self):
        return str(BUILD / "fvprefetch")

    def manifest(self, entries, name="manifest.json"):
        path = self.dir / name
        path.write_text(json.dumps({"version": 1, "entries": entries}, indent=2))
        return str(path)

    def run_command(self, argv, env=None, **kwargs):
        return subprocess.run(
            [str(a) for a in argv],
            env={**self.env, **(env or {})},
            cwd=self.dir,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            **kwargs,
        )

    def fvp(self, *args, env=None, **kwargs):
        return self.run_command([self.command(), *args], env, **kwargs)

    def mpirun(self, ranks, *args, env=None):
        codes, wrapper = self.recording()
        done = self.run_command([MPIEXEC, "-n", ranks, *wrapper, self.command(), *args], env)
        done.codes = self.codes_in(codes, ranks)
        return done

    def recording(self):
        """(a new folder, what to put before a rank's command): there the rank leaves its exit code, and mpirun is
        told of no failure: it would kill the ranks that have not got that far. Not a shell script, which would have
        the command take itself for part of one."""
        codes = Path(tempfile.mkdtemp(dir=self.dir, prefix="codes-"))
        return codes, [BUILD / "tests/wrappers/apptainer", "--codes", codes]

    def codes_in(self, folder, ranks):
        files = [folder / str(rank) for rank in range(ranks)]
        return [int(file.read_text()) if file.exists() else None for file in files]

    def pid_in(self, folder, rank):
        self.wait_for(f"the pid of rank {rank}", (folder / f"pid.{rank}").exists)
        return int((folder / f"pid.{rank}").read_text())

    def be_launcher(self, name="slurmstepd"):
        """Until the end of the test this process has the name of a launcher's daemon, as whose child the command
        believes what the launcher's variables say."""
        before = Path("/proc/self/comm").read_text().strip()
        self.addCleanup(set_process_name, before)
        set_process_name(name)

    def start(self, *args, env=None, **kwargs):
        """In the background; killed at the end of the test when still there."""
        return self.start_command([self.command(), *args], env, **kwargs)

    def start_command(self, argv, env=None, **kwargs):
        process = subprocess.Popen(
            [str(a) for a in argv],
            env={**self.env, **(env or {})},
            cwd=self.dir,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **kwargs,
        )

        def end():
            if process.poll() is None:
                process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def wait_for(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, "waited too long for " + what)
            time.sleep(0.01)

    # --- looking ---------------------------------------------------------------------------------

    def paths(self, stdout):
        return dict(line.split("\t") for line in stdout.splitlines())

    def assert_ok(self, done, code=0):
        self.assertEqual(done.returncode, code, f"stdout:\n{done.stdout}\nstderr:\n{done.stderr}")

    def unfinished(self):
        """Private files that a run left behind: to be gone on with, if it was not the server's fault."""
        return [p for p in self.dir.rglob("*") if p.name.endswith((".fvprefetch-part", ".incomplete"))]

    def site_bytes(self):
        return sum(
            p.stat().st_size for p in self.hub.root.rglob("*") if p.is_file() and not p.name.startswith(".")
        )


def main():
    global BUILD
    parser = argparse.ArgumentParser()
    parser.add_argument("--build-dir", required=True, type=Path)
    arguments, rest = parser.parse_known_args()
    BUILD = arguments.build_dir.resolve()
    sys.modules["harness"].BUILD = BUILD  # this file may run as __main__'s import
    unittest.main(module="__main__", argv=[sys.argv[0], *rest], verbosity=2)

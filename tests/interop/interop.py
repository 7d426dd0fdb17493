"""What the interop tests share: a hub with one set of repositories, the real clients, and the results.

Each test class runs the built command and one real client (`client`, `direction`) against caches of its
own; each test is one case of the table that tests/run prints. The clients are made by tests/interop/install.
"""

import atexit
import json
import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import harness  # noqa: E402

TOKEN = "hf_reader"
PAGE_SIZE = 20
MANY = 45  # files of org/many: three pages

QUIET = {
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
}


def noise(name, size):
    """`size` bytes that are the same in every run and like no others."""
    out = b""
    while len(out) < size:
        out += harness.hashlib.sha512(f"{name} {len(out)}".encode()).digest()
    return out[:size]


# --- the clients ---------------------------------------------------------------------------------


class Server:
    """A client process that answers line by line."""

    def __init__(self, argv, env, cwd):
        with open(Path(cwd) / "client.log", "ab") as log:
            self.process = subprocess.Popen(
                [str(a) for a in argv], env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self.rest = b""

    def ask(self, question):
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], harness.PATIENCE)
            piece = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not piece:
                raise AssertionError(f"no answer to {question}")
            self.rest += piece
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def pinned(file, name):
    for line in file.read_text().splitlines():
        if line.startswith(name + "=="):
            return line.split("==")[1].strip()
    raise AssertionError(f"{file} does not pin {name}")


class Python:
    name = "huggingface_hub"

    def __init__(self, venv, pins):
        self.venv = venv
        self.version = pinned(pins, self.name)
        self.release = tuple(int(n) for n in self.version.split(".")[:2])

    def interpreter(self):
        return harness.BUILD / self.venv / "bin/python"

    def argv(self):
        return [self.interpreter(), HERE / "python_client.py"]


class Node:
    name, version = "@huggingface/hub", json.loads((HERE / "node/package.json").read_text())["dependencies"]["@huggingface/hub"]

    def argv(self):
        return ["node", HERE / "node/client.mjs", harness.BUILD / "interop/node/node_modules"]


class Rust:
    name = "hf-hub"

    def __init__(self, generation):
        self.generation = generation
        pins = (HERE / "rust/Cargo.toml").read_text()
        self.version = pins.split(f"hf-hub-{generation} = ")[1].split('version = "=')[1].split('"')[0]

    def argv(self):
        return [harness.BUILD / "interop/rust/debug/fvprefetch-interop", self.generation]


HUB_0 = Python("venv-hub-0", HERE / "oracles/hub-0.txt")
HUB_1 = Python("venv-hub-1", HERE / "oracles/hub-1.txt")
NEWEST = Python("venv", HERE.parent / "support/oracles.txt")
PYTHONS = (HUB_0, HUB_1, NEWEST)
NODE = Node()
RUST_0 = Rust("0")
RUST_1 = Rust("1")
RUSTS = (RUST_0, RUST_1)


def for_each(clients, scope):
    """Decorator: the class once for each client, instead of itself."""

    def make(base):
        for client in clients:
            name = f"{base.__name__}_{client.name.strip('@').replace('/', '_')}_{client.version.replace('.', '_')}"
            scope[name] = type(name, (base,), {"client": client, "__module__": base.__module__})
        return None

    return make


# --- the results ---------------------------------------------------------------------------------

RESULTS = {}  # (client, version, direction) -> [cases, failures]; see table.py


def write_results():
    folder = harness.BUILD / "tests/interop/results"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[*key, *counts] for key, counts in RESULTS.items()]
    (folder / (Path(sys.argv[0]).stem + ".json")).write_text(json.dumps(rows))


# --- the hub and its repositories ----------------------------------------------------------------

MODEL = {
    "main": {
        "config.json": b'{"x": 1}\n',
        "model.safetensors": noise("weights", 300_000),
        "sub/tokenizer.json": b"{}\n",
        "sub/dir/more.bin": noise("more", 20_000),
    },
    "dev": {"config.json": b'{"x": 2}\n', "model.safetensors": noise("weights", 300_000)},
    "v1.0": {"config.json": b'{"x": 0}\n', "old.bin": noise("old", 10_000)},
    "refs/pr/1": {"config.json": b'{"x": 3}\n', "sub/new.json": b"[]\n"},
}
NAMES = {
    "empty.txt": b"",
    "empty.bin": b"",
    ".gitattributes": b"*.bin filter=lfs\n",
    "na\u00efve name.txt": b"text\n",
    "a+b %41#c?d&e.json": b"odd\n",
    "deep/er/and/deep er/w.bin": noise("deep", 5_000),
}
SMALL = {"config.json": b'{"small": true}\n', "w.bin": noise("small", 8_000)}


def fill(hub):
    folders = {"main": ".", "dev": "_dev", "v1.0": "_tag", "refs/pr/1": "_pr"}
    for repo, xet in (("models/org/model", True), ("models/org/plain", False)):
        hub.put(f"{repo}/.testhub.json", json.dumps({"branches": folders, "xet": xet}).encode())
        for branch, files in MODEL.items():
            for path, data in files.items():
                hub.put(f"{repo}/{folders[branch]}/{path}", data)
    for repo, files in {
        "models/org/names": NAMES,
        "models/org/many": {f"part{i % 3}/f{i:02}.txt": b"%d\n" % i for i in range(MANY)},
        "models/org/gated": SMALL,
        "models/bare": SMALL,
        "datasets/org/data": SMALL,
        "datasets/org/plaindata": SMALL,
        "spaces/org/space": SMALL,
    }.items():
        for path, data in files.items():
            hub.put(f"{repo}/{path}", data)
    hub.put("datasets/org/plaindata/.testhub.json", b'{"xet": false}')
    hub.put("models/org/gated/.testhub.json", json.dumps({"gated": True, "token": TOKEN}).encode())
    hub.put("models/old/name/.testhub.json", json.dumps({"renamed_to": "org/model"}).encode())


def content(files):
    return {path: harness.sha256(data) for path, data in files.items()}


class Interop(harness.EndToEnd):
    """One hub for a class, caches of its own for each test."""

    maxDiff = None
    client = None
    direction = ""
    servers = {}

    @classmethod
    def setUpClass(cls):
        cls.class_dir = Path(tempfile.mkdtemp(prefix="fvp-interop-"))
        cls.addClassCleanup(shutil.rmtree, cls.class_dir, ignore_errors=True)
        cls.class_hub = harness.Hub(cls.class_dir / "site", "--page-size", str(PAGE_SIZE))
        cls.addClassCleanup(cls.class_hub.close)
        fill(cls.class_hub)
        cls.servers = {}
        cls.addClassCleanup(lambda: [server.close() for server in cls.servers.values()])

    def make_hub(self):
        self.class_hub.reset()
        self.addCleanup(self.class_hub.no_faults)
        return self.class_hub

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        failed = len(result.failures) + len(result.errors) > before
        key = (self.client.name, self.client.version, self.direction)
        RESULTS[key][0] += 1
        RESULTS[key][1] += failed
        return result

    # --- the other side --------------------------------------------------------------------------

    def ask(self, call, client=None, offline=False, umask=0o022, settings=(), **args):
        """The answer of the real client, with `settings` in its environment; its process lives as long as the class."""
        client = client or self.client
        key = (client, offline, settings)
        server = self.servers.get(key)
        if server is None:
            home = self.class_dir / "home"
            home.mkdir(exist_ok=True)
            env = {**self.env, **QUIET, "HOME": str(home), "HF_HUB_CACHE": str(self.class_dir / "nobody's")}
            env.update(settings, **({"HF_HUB_OFFLINE": "1"} if offline else {}))
            server = self.servers[key] = Server(client.argv(), env, self.class_dir)
        return server.ask({"call": call, "args": args, "umask": umask, "offline": offline})

    def value(self, call, **args):
        answer = self.ask(call, **args)
        if "error" in answer:
            self.fail(f"{call}{args}: {answer['error']}: {answer['text']}")
        return answer["value"]

    def rust(self, how, cache, revision, files, repo="org/model", repo_type="model"):
        """Paths of `files`, by the real hf-hub: "cached" or "get"."""
        done = self.run_command([*self.client.argv(), how, cache, self.hub.url, repo_type, repo, revision, *files])
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()

    def ours(self, entry, *options, cache=None, code=0, env=None, **kwargs):
        """Runs the command for one entry."""
        path = self.manifest([{"name": "it", **entry}])
        done = self.fvp(path, *options, env={"HF_HUB_CACHE": str(cache or self.hf_cache), **(env or {})}, **kwargs)
        self.assert_ok(done, code)
        return done

    # --- looking ---------------------------------------------------------------------------------

    def commit(self, revision="main", repo="models/org/model"):
        return self.hub._call("GET", f"/api/{repo}/revision/{revision.replace('/', '%2F')}")["sha"]

    def folder_of(self, done):
        return Path(self.paths(done.stdout)["it"])

    def assert_content(self, folder, files):
        """Exactly these files, these bytes."""
        found = {str(p.relative_to(folder)): harness.sha256(p.read_bytes()) for p in Path(folder).rglob("*") if p.is_file()}
        self.assertEqual(found, content(files))

    def assert_no_body(self):
        self.assertEqual(self.hub.stats()["body_bytes"], 0)

    def assert_no_request(self):
        stats = self.hub.stats()
        self.assertEqual(stats["requests"], 0, stats["by_path"])


def tree(cache):
    """path -> (kind, mode, what is in it), of everything below `cache`."""
    out = {}
    for path in sorted(Path(cache).rglob("*")):
        info = path.lstat()
        kind, inside = "other", None
        if stat.S_ISLNK(info.st_mode):
            kind, inside = "link", os.readlink(path)
        elif stat.S_ISDIR(info.st_mode):
            kind = "folder"
        elif stat.S_ISREG(info.st_mode):
            kind, inside = "file", path.read_bytes()
        out[str(path.relative_to(cache))] = (kind, None if kind == "link" else oct(info.st_mode & 0o7777), inside)
    return out


def main():
    for case in vars(sys.modules["__main__"]).values():
        if isinstance(case, type) and issubclass(case, Interop) and case.client:
            RESULTS[case.client.name, case.client.version, case.direction] = [0, 0]
    atexit.register(write_results)
    harness.main()

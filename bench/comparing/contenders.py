"""How each contender is called: commands that end with the files on disk and their SHA-256 checked.

Who checks by itself (fvprefetch, aria2c with a checksum, minimal_fetch) is left alone; after the others
comes `openssl dgst -sha256`, whose lines are compared afterwards. Not sha256sum: Debian's does without the
processor's SHA instructions and takes five times as long, which would flatter us; one row shows it. Each
is given what it does best with: aria2c no preallocation and ranges from 1 MiB on, Hub clients plain HTTP
(no Xet) and no telemetry.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable


@dataclass
class Contender:
    name: str
    steps: Callable  # (out: Path) -> commands, run one after the other
    files: Callable  # (out: Path) -> {path: File} that must be there afterwards
    env: dict = field(default_factory=dict)
    prepare: Callable = lambda out: None  # not measured
    digests: bool = False  # its output has `<sha256> *<path>` for each file
    filled_by: "Contender" = None  # warm: runs once, uncounted, in the folder, which is kept from round to round


@dataclass
class Programs:
    build: Path
    hf: Path  # folder of its virtual environment
    hf_transfer: Path
    enter: tuple = ()  # comes before every command: into a namespace

    def of_build(self, name):
        return str(self.build / name)

    def step(self, *argv):
        return [*self.enter, *map(str, argv)]


def digest(files):
    """Prints `<hex> *<path>` for each."""
    return ["openssl", "dgst", "-sha256", "-r", *map(str, files)]


CHECKED = " + openssl sha256"


def into(group):
    return lambda out: {out / file.name.replace("/", "_"): file for file in group.files}


# --- plain addresses ------------------------------------------------------------------------------


def fvprefetch(programs, group, base, options=(), env=None):
    """From a manifest that pins every file, into an empty cache."""

    def prepare(out):
        entries = [
            {"name": f.name, "source": f"{base}/{f.name}", "sha256": f.sha256, "size": f.size} for f in group.files
        ]
        (out / "manifest.json").write_text(json.dumps({"version": 1, "entries": entries}))

    def steps(out):
        caches = ["--cache-dir", out / "eval", "--hf-cache-dir", out / "hub"]
        return [programs.step(programs.of_build("fvprefetch"), out / "manifest.json", *caches, "--quiet", *options)]

    def files(out):
        return {out / "eval/models" / f.name: f for f in group.files}

    return Contender(" ".join(["fvprefetch", *options]), steps, files, env or {}, prepare)


def curl(programs, group, base, options=(), sync=False, coreutils=False):
    files = into(group)

    def prepare(out):
        lines = [f'url = "{base}/{f.name}"\noutput = "{path}"\n' for path, f in files(out).items()]
        (out / "curl.conf").write_text("".join(lines))

    def steps(out):
        get = programs.step("curl", "-sSf", *options, "-K", out / "curl.conf")
        check = ["sha256sum", "-b", *map(str, files(out))] if coreutils else digest(files(out))
        return [get, check] + ([["sync", *map(str, files(out))]] if sync else [])

    name = "curl --parallel" if "--parallel" in options else "curl"
    name += " + sha256sum" if coreutils else CHECKED
    return Contender(name + (" + sync" if sync else ""), steps, files, prepare=prepare, digests=True)


def aria2c(programs, group, base, connections, at_once=1, options=()):
    files = into(group)

    def prepare(out):
        (out / "list").write_text(
            "".join(
                f"{base}/{f.name}\n  dir={path.parent}\n  out={path.name}\n  checksum=sha-256={f.sha256}\n"
                for path, f in files(out).items()
            )
        )

    def steps(out):
        return [
            programs.step(
                "aria2c", "--no-conf", "-q", "--file-allocation=none", "-k1M", f"-x{connections}", f"-s{connections}",
                f"-j{at_once}", *options, "-i", out / "list",
            )
        ]  # fmt: skip

    name = f"aria2c -j{at_once}" if at_once > 1 else f"aria2c -x{connections}"
    return Contender(name, steps, files, prepare=prepare)


def minimal_fetch(programs, group, base, certificate=None):
    (file,) = group.files
    extra = [certificate] if certificate else []

    def steps(out):
        tool = programs.of_build("bench/minimal_fetch")
        return [programs.step(tool, f"{base}/{file.name}", out / file.name, file.sha256, *extra)]

    return Contender("minimal_fetch", steps, lambda out: {out / file.name: file})


def copy(group, folder):
    """No network at all: what the disk and the digest cost."""
    (file,) = group.files
    files = into(group)

    def steps(out):
        return [["cp", str(folder / file.name), str(out / file.name)], digest(files(out))]

    return Contender("cp" + CHECKED, steps, files, digests=True)


# --- the Hub --------------------------------------------------------------------------------------


def snapshot(group, cache):
    return {cache / f"models--org--{group.name}/snapshots/{group.commit}" / f.name: f for f in group.files}


def fvprefetch_hub(programs, group, endpoint):
    def steps(out):
        caches = ["--cache-dir", out / "eval", "--hf-cache-dir", out / "hub"]
        return [programs.step(programs.of_build("fvprefetch"), "ensure", f"org/{group.name}", *caches, "--quiet")]

    def files(out):
        return snapshot(group, out / "hub")

    return Contender("fvprefetch from the Hub", steps, files, {"HF_ENDPOINT": endpoint})


def hf_download(programs, group, endpoint, transfer=False):
    """`hf download`; `transfer`: the older one that hands over to hf_transfer."""
    venv = programs.hf_transfer if transfer else programs.hf
    env = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if transfer:
        env["HF_HUB_ENABLE_HF_TRANSFER"] = "1"

    def files(out):
        return snapshot(group, out / "hub")

    def steps(out):
        return [
            programs.step(venv / "bin/hf", "download", f"org/{group.name}", "--cache-dir", out / "hub"),
            digest(files(out)),
        ]

    return Contender(
        "hf download" + (" with hf_transfer" if transfer else "") + CHECKED, steps, files, env, digests=True
    )


def warm(cold, offline=False):
    """The same once more when everything is there; nobody hashes then."""
    return Contender(
        cold.name.removesuffix(CHECKED) + ", warm" + (", offline" if offline else ""),
        lambda out: cold.steps(out)[:1],
        cold.files,
        cold.env | ({"HF_HUB_OFFLINE": "1"} if offline else {}),
        filled_by=cold,
    )


def base_environment(work):
    """The same for all: nothing of the user's configuration, no proxy, no token."""
    home = work / "home"
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home)}

"""What the contenders download: files of noise, and the nginx that has them.

One nginx serves three things: plain files, the same files at a limited rate for each connection, and a
Hub made of static answers (repository info, tree, /resolve/ with the redirect of LFS files to /cdn/), so
that a Hub client is measured and not a test server. Its digests are real, its API answers have the fields
that the clients read.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30  # seconds until a server that must come up or go away counts as hanging
MIB = 1 << 20
RATE = 40_000_000  # bytes per second and connection under /limited/


@dataclass(frozen=True)
class File:
    name: str  # below the folder that it is served from
    size: int
    sha256: str
    git_sha1: str

    @property
    def lfs(self):
        return self.name.endswith((".bin", ".safetensors"))


@dataclass(frozen=True)
class Group:
    """Files that belong together: at /plain/<name>/ and /limited/<name>/, and as repository org/<name>."""

    name: str
    files: tuple

    @property
    def size(self):
        return sum(file.size for file in self.files)

    @property
    def commit(self):
        return hashlib.sha1("".join(f"{f.name} {f.sha256}\n" for f in self.files).encode()).hexdigest()


def make_file(folder, name, size):
    sha256, git_sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        left = size
        while left:
            piece = os.urandom(min(left, MIB))
            out.write(piece)
            sha256.update(piece)
            git_sha1.update(piece)
            left -= len(piece)
    return File(name, size, sha256.hexdigest(), git_sha1.hexdigest())


def make_group(www, name, sizes):
    folder = www / "plain" / name
    group = Group(name, tuple(make_file(folder, file, size) for file, size in sizes.items()))
    cdn, api = www / "cdn", www / "api"
    cdn.mkdir(exist_ok=True)
    api.mkdir(exist_ok=True)
    for file in group.files:
        if file.lfs:
            os.link(folder / file.name, cdn / file.sha256)
    info = {
        "_id": "0" * 24, "id": f"org/{name}", "modelId": f"org/{name}", "sha": group.commit, "private": False,
        "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
        "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
        "siblings": [{"rfilename": file.name} for file in group.files],
    }  # fmt: skip
    tree = [
        {"type": "file", "oid": file.git_sha1, "size": file.size, "path": file.name}
        | ({"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {})
        for file in group.files
    ]
    (api / f"{name}-info.json").write_text(json.dumps(info))
    (api / f"{name}-tree.json").write_text(json.dumps(tree))
    return group


def mixed_sizes():
    """30 files, as a model repository has them: some large, some middling, many small."""
    sizes = {f"model-{i:05}-of-00002.safetensors": 64 * MIB for i in (1, 2)}
    sizes |= {f"vae/part-{i}.safetensors": 16 * MIB for i in range(4)}
    sizes |= {f"adapter/layer-{i}.safetensors": 4 * MIB for i in range(6)}
    sizes |= {f"extra/head-{i}.safetensors": MIB for i in range(4)}
    sizes |= {f"config/part-{i}.json": 1024 << (i % 8) for i in range(14)}
    return sizes


def hub_config(www, groups, cdn):
    etags, lfs, lfs_etags, lfs_sizes, commits, api = [], [], [], [], [], []
    for group in groups:
        commits.append(f"{group.name} {group.commit};")
        for revision in ("main", group.commit):
            for kind, what in (("revision", "info"), ("tree", "tree")):
                api.append(
                    f"location = /api/models/org/{group.name}/{kind}/{revision} "
                    f"{{ default_type application/json; alias {www}/api/{group.name}-{what}.json; }}"
                )
        for file in group.files:
            key = f"{group.name}/{file.name}"
            if file.lfs:
                lfs.append(f"{key} {file.sha256};")
                lfs_etags.append(f"""{key} '"{file.sha256}"';""")
                lfs_sizes.append(f"{key} {file.size};")
            else:
                etags.append(f"""{key} '"{file.git_sha1}"';""")
    maps = {
        "$hub_commit": ("$repo", commits), "$hub_etag": ("$repo/$file", etags), "$hub_lfs": ("$repo/$file", lfs),
        "$hub_lfs_etag": ("$repo/$file", lfs_etags), "$hub_lfs_size": ("$repo/$file", lfs_sizes),
    }  # fmt: skip
    lines = [f"map {key} {name} {{ {' '.join(rows)} }}" for name, (key, rows) in maps.items()]
    resolve = f"""
    location ~ ^/org/(?<repo>[^/]+)/resolve/[^/]+/(?<file>.+)$ {{
      etag off; add_header X-Repo-Commit $hub_commit; add_header ETag $hub_etag;
      add_header X-Linked-ETag $hub_lfs_etag; add_header X-Linked-Size $hub_lfs_size;
      if ($hub_lfs) {{ return 302 {cdn}/cdn/$hub_lfs; }}
      alias {www}/plain/$repo/$file;
    }}"""
    return "\n  ".join(lines), "\n    ".join(api) + resolve


def free_ports(count):
    """Held together until all are known: one that was let go could be given again."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def make_certificate(folder):
    """A self-signed authority for 127.0.0.1, good for a day."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
         "-out", folder / "ca.pem"],
        check=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    return folder / "ca.pem"


@contextlib.contextmanager
def running(argv, log, **options):
    """A server of ours: ended by its own pid, and waited for."""
    with open(log, "ab") as out:
        process = subprocess.Popen([str(a) for a in argv], stderr=out, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nginx(folder, groups, listen, probe, cdn="", certificate=None, enter=()):
    """nginx over folder/www; `listen`: its listen lines; `probe`: an address that answers when it
    is up; `cdn`: where the Hub sends clients for LFS files, another host for them to see."""
    folder, www = Path(folder), Path(folder) / "www"
    home = Path(folder) / f"nginx-{'far' if enter else 'near'}"
    home.mkdir(exist_ok=True)
    maps, hub = hub_config(www, groups, cdn)
    temporary = " ".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    tls = (
        f"ssl_certificate {certificate}; ssl_certificate_key {certificate.parent}/key.pem; ssl_protocols TLSv1.3;"
        if certificate
        else ""
    )
    (home / "nginx.conf").write_text(f"""
daemon off; user root; worker_processes auto; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; {temporary}
  default_type application/octet-stream; sendfile on; tcp_nopush on; keepalive_requests 10000;
  map_hash_max_size 8192; map_hash_bucket_size 256;
  {maps}
  server {{
    {" ".join(f"listen {line};" for line in listen)} {tls}
    location /plain/ {{ alias {www}/plain/; }}
    location /limited/ {{ alias {www}/plain/; limit_rate {RATE}; }}
    location /cdn/ {{ alias {www}/cdn/; }}
    location = /up {{ return 204; }}
    {hub}
  }}
}}
""")
    argv = [*enter, "/usr/sbin/nginx", "-c", home / "nginx.conf", "-e", home / "error.log"]
    with running(argv, home / "stderr.log", stdin=subprocess.DEVNULL) as process:
        end = time.monotonic() + PATIENCE
        ask = [*enter, "curl", "-sfg", "-o", "/dev/null", "--noproxy", "*", "--max-time", "5", probe]
        while subprocess.run(ask, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE).returncode != 0:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("nginx did not start: " + (home / "stderr.log").read_text())
            time.sleep(0.05)
        yield


@contextlib.contextmanager
def slow_link(program, delay_ms, loss, log):
    """Two namespaces with a bad wire between them (bench/slow_link.cpp): what it printed, as a dict."""
    with running([program, str(delay_ms), str(loss)], log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("no slow link here: " + Path(log).read_text().strip())
        yield json.loads(line)

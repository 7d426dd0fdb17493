"""The networks of real sites: proxies, certificate authorities of their own, IPv6, servers that come late."""

import http.server
import os
import shutil
import socket
import subprocess
import threading
import time

import harness

NGINX = """
daemon off; user root; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format lines "$server_protocol $connection $uri $status"; access_log {dir}/access.log lines;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl http2; root {dir}/www; keepalive_requests 40;
    ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key;
  }}
}}
"""
SQUID = """
http_port 127.0.0.1:{port}
pid_filename {dir}/squid.pid
access_log stdio:{dir}/access.log
cache_log {dir}/cache.log
cache deny all
shutdown_lifetime 0 seconds
http_access {access}
{auth}
"""
AUTH = """
auth_param basic program /usr/lib/squid/basic_ncsa_auth {dir}/users
acl known proxy_auth REQUIRED
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Network(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.data = self.hub.put("files/a.pth", b"\x08bytes" * 10_000)

    def ensure(self, url, *options, env=None, code=0):
        done = self.fvp("ensure", url, "--name", "a.pth", "--retries", "0", *options, env=env)
        self.assert_ok(done, code)
        if code == 0:
            self.assertEqual(harness.Path(done.stdout.rstrip("\n")).read_bytes(), self.data)
        return done

    def serve(self, argv, port, log):
        process = subprocess.Popen([str(a) for a in argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def end():
            process.terminate()
            try:
                process.wait(harness.PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self.addCleanup(end)

        def listens():
            if process.poll() is not None:
                raise AssertionError(f"{argv[0]} ended: " + (log.read_text() if log.exists() else ""))
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        self.wait_for(f"{argv[0]} to listen", listens)

    # --- proxies ---------------------------------------------------------------------------------

    def squid(self, users=None):
        self.assertTrue(shutil.which("squid", path="/usr/sbin"), "squid is not installed")
        folder = self.dir / "squid"
        folder.mkdir()
        os.chmod(self.dir, 0o755)
        shutil.chown(folder, "proxy")
        port = free_port()
        auth = ""
        if users:
            (folder / "users").write_text(users)
            auth = AUTH.format(dir=folder)
        config = folder / "squid.conf"
        config.write_text((auth if users else "") + SQUID.format(
            port=port, dir=folder, access="allow known" if users else "allow all", auth=""))
        self.serve(["/usr/sbin/squid", "-N", "-f", config], port, folder / "cache.log")
        return f"127.0.0.1:{port}", folder / "access.log"

    def test_a_proxy_in_either_case_and_no_proxy(self):
        proxy, log = self.squid()
        url = self.hub.file_url("a.pth")
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            with self.subTest(name=name):
                shutil.rmtree(self.eval_cache, ignore_errors=True)
                seen = log.read_text().count("/files/a.pth") if log.exists() else 0
                self.ensure(url, env={name: f"http://{proxy}"})
                self.wait_for("the proxy's log", lambda: log.read_text().count("/files/a.pth") == seen + 1)
        for name in ("no_proxy", "NO_PROXY"):
            with self.subTest(name=name):
                shutil.rmtree(self.eval_cache, ignore_errors=True)
                seen = log.read_text().count("/files/a.pth")
                self.ensure(url, env={"HTTP_PROXY": f"http://{proxy}", name: "127.0.0.1"})
                self.assertEqual(log.read_text().count("/files/a.pth"), seen)

    def test_a_proxy_with_a_password_which_nobody_sees(self):
        # "secret" by openssl passwd -apr1, as the helper wants it
        word = subprocess.run(["openssl", "passwd", "-apr1", "-salt", "x", "secret"], capture_output=True, text=True, check=True)
        proxy, log = self.squid(users=f"me:{word.stdout}")
        url = self.hub.file_url("a.pth")
        self.ensure(url, env={"http_proxy": f"http://me:secret@{proxy}"})
        shutil.rmtree(self.eval_cache)
        done = self.ensure(url, "--verbose", env={"http_proxy": f"http://me:wrong-secret@{proxy}"}, code=6)
        self.assertNotIn("wrong-secret", done.stderr + done.stdout)

    def test_a_proxy_that_is_not_there(self):
        done = self.ensure(self.hub.file_url("a.pth"), env={"http_proxy": f"http://me:secret@127.0.0.1:{free_port()}"}, code=6)
        self.assertNotIn("secret", done.stderr)
        self.assertIn("check https_proxy, http_proxy", done.stderr)

    def test_a_proxy_that_is_not_there_does_not_make_a_warm_cache_do(self):
        self.hub.put("models/org/model/w.safetensors", b"w" * 1000)
        path = self.manifest([{"name": "m", "source": "org/model"}])
        self.assert_ok(self.fvp(path))
        # Without a Hub the cache does; without the proxy nobody knows.
        done = self.fvp(path, "--refresh", "--retries", "0", env={"http_proxy": f"http://127.0.0.1:{free_port()}"})
        self.assert_ok(done, 6)
        done = self.fvp(path, "--refresh", "--retries", "0", env={"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"})
        self.assert_ok(done)

    # --- TLS -------------------------------------------------------------------------------------

    def tls(self):
        folder = self.dir / "tls"
        (folder / "www").mkdir(parents=True)
        (folder / "www/a.pth").write_bytes(self.data)
        os.chmod(self.dir, 0o755)

        def openssl(*args):
            subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
                "-subj", "/CN=A site's own authority")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "san", "-out", "server.pem")
        port = free_port()
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(dir=folder, port=port))
        self.serve(["/usr/sbin/nginx", "-c", config, "-e", folder / "error.log"], port, folder / "error.log")
        return f"https://127.0.0.1:{port}/a.pth", folder

    def test_an_authority_of_the_site(self):
        url, folder = self.tls()
        done = self.ensure(url, code=6)
        self.assertIn("SSL_CERT_FILE", done.stderr)
        for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            with self.subTest(name=name):
                shutil.rmtree(self.eval_cache, ignore_errors=True)
                self.ensure(url, env={name: str(folder / "ca.pem")})

    def test_tls_through_a_proxy(self):
        url, folder = self.tls()
        proxy, log = self.squid()
        for name in ("https_proxy", "HTTPS_PROXY"):
            with self.subTest(name=name):
                shutil.rmtree(self.eval_cache, ignore_errors=True)
                self.ensure(url, env={"SSL_CERT_FILE": str(folder / "ca.pem"), name: f"http://{proxy}"})
        self.wait_for("the proxy's log", lambda: log.read_text().count("CONNECT") == 2)

    def test_small_files_share_a_connection_where_the_server_has_http_2(self):
        url, folder = self.tls()
        sizes = {f"small-{i}": 1 + i * 997 for i in range(100)} | {"large": 3 << 20}
        for name, size in sizes.items():
            (folder / "www" / name).write_bytes(os.urandom(size))
        entries = [{"name": n, "source": url.replace("a.pth", n), "size": size} for n, size in sizes.items()]
        # Each connection is ended by the server after 40 requests, which must not cost a file.
        done = self.fvp(self.manifest(entries), "--retries", "0", env={"SSL_CERT_FILE": str(folder / "ca.pem")})
        self.assert_ok(done)
        for name in sizes:
            self.assertEqual((self.eval_cache / "models" / name).read_bytes(), (folder / "www" / name).read_bytes())
        log = folder / "access.log"
        self.wait_for("the log of all requests", lambda: log.read_text().count("\n") >= len(sizes))
        lines = [line.split() for line in log.read_text().splitlines()]
        self.assertEqual(len(lines), len(sizes), lines)
        small = [(protocol, connection) for protocol, connection, path, _ in lines if "small" in path]
        self.assertEqual({protocol for protocol, _ in small}, {"HTTP/2.0"})
        self.assertLessEqual(len({connection for _, connection in small}), 10)

    # --- addresses -------------------------------------------------------------------------------

    def python_server(self, address, family):
        server = harness.serve_file(self.data, address, family)
        self.addCleanup(server.thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_port

    def test_ipv6(self):
        port = self.python_server("::1", socket.AF_INET6)
        self.ensure(f"http://[::1]:{port}/a.pth")

    def test_a_name_with_both_of_which_only_one_answers(self):
        port = self.python_server("127.0.0.1", socket.AF_INET)
        self.ensure(f"http://localhost:{port}/a.pth")

    def test_a_name_that_is_not_found_at_first(self):
        folder = self.dir / "names"
        folder.mkdir()
        (folder / "file").write_bytes(self.data)
        done = self.run_command(
            ["unshare", "--net", "--mount", "--propagation", "private", "--kill-child",
             "/usr/bin/python3", harness.TOP / "tests/e2e/name_server.py", folder,
             self.command(), "ensure", "--name", "a.pth", "--verbose"])
        self.assert_ok(done)
        self.assertRegex(done.stderr, r"[Rr]esolve.*checkpoints\.example.*again in")
        self.assertEqual(harness.Path(done.stdout.rstrip("\n")).read_bytes(), self.data)

    def test_a_server_that_comes_late(self):
        port = free_port()
        process = self.start("ensure", f"http://127.0.0.1:{port}/a.pth", "--name", "a.pth", "--retries", "8", "--verbose")
        heard = []

        def refused():
            heard.append(process.stderr.readline())
            return any("again" in line or "retry" in line for line in heard)

        self.wait_for("a first refusal", refused)
        data = self.data

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 0, "".join(heard) + err)
        self.assertEqual(harness.Path(out.rstrip("\n")).read_bytes(), data)


if __name__ == "__main__":
    harness.main()

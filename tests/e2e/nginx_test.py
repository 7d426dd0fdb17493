"""A real web server: plain URLs from nginx, which is not ours and does not share our mistakes."""

import shutil
import socket
import subprocess
import time

import harness

CONFIG = """
daemon off; user root; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log {dir}/access.log; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
  server {{
    listen 127.0.0.1:{port}; root {dir}/www;
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    location /loop {{ return 302 /loop; }}
  }}
}}
"""


class Nginx(harness.EndToEnd):
    def setUp(self):
        super().setUp()
        self.assertTrue(shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"), "nginx is not installed")
        self.www = self.dir / "nginx/www"
        self.www.mkdir(parents=True)
        self.start_nginx()

    def start_nginx(self):
        for _ in range(5):  # the port was free a moment ago; somebody may have taken it
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            config = self.dir / "nginx/nginx.conf"
            config.write_text(CONFIG.format(dir=self.dir / "nginx", port=port))
            nginx = subprocess.Popen(
                ["/usr/sbin/nginx", "-c", config, "-e", self.dir / "nginx/error.log"], stderr=subprocess.DEVNULL
            )
            end = time.monotonic() + harness.PATIENCE
            while nginx.poll() is None and time.monotonic() < end:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        self.addCleanup(nginx.wait, harness.PATIENCE)
                        self.addCleanup(nginx.terminate)
                        self.url = f"http://127.0.0.1:{port}"
                        return
                time.sleep(0.01)
        self.fail("nginx did not start: " + (self.dir / "nginx/error.log").read_text())

    def put(self, name, data):
        (self.www / name).write_bytes(data)
        return data

    def ensure(self, path):
        return self.fvp("ensure", self.url + path, "--name", "x", "--retries", "0")

    def test_a_file_arrives_as_it_is_although_the_server_likes_to_compress(self):
        data = self.put("a.pth", b"\0compressible " * 100_000)
        done = self.ensure("/a.pth")
        self.assert_ok(done)
        self.assertEqual(harness.Path(done.stdout.rstrip("\n")).read_bytes(), data)

    def test_an_empty_file_and_a_redirect(self):
        self.put("empty.txt", b"")
        done = self.ensure("/moved/empty.txt")
        self.assert_ok(done)
        self.assertEqual(harness.Path(done.stdout.rstrip("\n")).read_bytes(), b"")

    def test_its_404_and_403_and_a_redirect_loop(self):
        self.assert_ok(self.ensure("/absent.pth"), 5)
        (self.www / "folder").mkdir()
        self.assert_ok(self.ensure("/folder/"), 4)
        self.assert_ok(self.ensure("/loop"), 6)
        self.assertEqual(list(self.eval_cache.rglob("x")), [])


if __name__ == "__main__":
    harness.main()

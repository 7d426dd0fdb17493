"""What the tests of cases share: a table of what was expected and what was seen, and servers that answer as they
are told.

A case is one line of BUILD/tests/cases/table.txt: its kind, the case, what is expected, what was seen. Cases of one
kind are what one rule of the program decides.
"""

import http.server
import socketserver
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402


@dataclass
class Answer:
    """Of a Site. `length`: the Content-Length, None for that of the body, "" for none at all (the body ends with the
    connection). `cut`: so many bytes of the body are sent, and then the connection ends."""

    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    length: str | None = None
    cut: int | None = None
    chunked: bool = False  # and no length

    def sent(self):
        """Called when all of it is sent."""


@dataclass
class Asked:
    """A request as a Site has got it; `number` counts those for its path from 1 on."""

    path: str
    headers: dict
    number: int

    def range(self):
        """(first, last or None) of a Range header, None without one."""
        text = self.headers.get("range")
        if text is None:
            return None
        first, last = text.removeprefix("bytes=").split("-")
        return int(first), int(last) if last else None


class Served:
    """A server on loopback of `handler`, each connection on a thread of its own."""

    def serve(self, handler):
        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128  # of its five a burst of connections would wait a second for the next SYN

            def handle_error(server, *_):  # noqa: N805
                pass  # a client that has had enough ends the connection

        self.server = Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Site(Served):
    """A server whose answers `answer(asked)` decides, each on a thread of its own."""

    def __init__(self, answer):
        self.asked = []
        self.head = None  # (status, headers) that HEAD of a path is answered with; None: not known here
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler):  # noqa: N805
                with lock:
                    number = 1 + sum(one.path == handler.path for one in self.asked)
                    headers = {name.lower(): value for name, value in handler.headers.items()}
                    asked = Asked(handler.path, headers, number)
                    self.asked.append(asked)
                told = answer(asked)
                handler.send_response_only(told.status)
                for name, value in told.headers.items():
                    for one in value if isinstance(value, list) else [value]:
                        handler.send_header(name, one)
                if told.chunked:
                    handler.send_header("Transfer-Encoding", "chunked")
                elif told.length != "":
                    handler.send_header("Content-Length", told.length or str(len(told.body)))
                handler.end_headers()
                sent = told.body[: told.cut]
                if told.chunked:
                    end = b"" if told.cut is not None else b"0\r\n\r\n"
                    handler.wfile.write(b"%x\r\n%s\r\n%s" % (len(sent), sent, end) if sent else end)
                else:
                    handler.wfile.write(sent)
                told.sent()
                if told.cut is not None or told.length is not None:
                    handler.close_connection = True

            def do_HEAD(handler):  # noqa: N805
                if self.head is None:
                    return handler.send_error(501)
                status, headers = self.head(handler.path)
                handler.send_response_only(status)
                for name, value in headers.items():
                    handler.send_header(name, value)
                handler.end_headers()
                handler.close_connection = True

            def log_message(handler, *_):  # noqa: N805
                pass

        self.serve(Handler)


class Cases(harness.EndToEnd):
    def site(self, answer):
        site = Site(answer)
        self.addCleanup(site.close)
        return site

    def case(self, kind, name, expected, seen):
        """One line of the table; fails when the two differ. In a test of several cases the others are still run."""
        table = harness.BUILD / "tests/cases/table.txt"
        table.parent.mkdir(parents=True, exist_ok=True)
        verdict = "as expected" if expected == seen else "WRONG"
        with open(table, "a") as out:
            out.write(f"case: {kind} | {name} | expected {expected} | seen {seen} | {verdict}\n")
        with self.subTest(name):
            self.assertEqual(seen, expected)

    def seen(self, done, path=None, data=None):
        """What a command came to, in the words of the table: "exit 8", "exit 0, whole", "exit 0, other bytes"."""
        text = f"exit {done.returncode}"
        if path is None or not Path(path).exists():
            return text + (", nothing" if path is not None and done.returncode == 0 else "")
        return text + (", whole" if Path(path).read_bytes() == data else ", other bytes")


main = harness.main

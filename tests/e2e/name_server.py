"""A network of its own with a name server that knows nothing at first; run by network_test.py as

    unshare --net --mount --propagation private python3 name_server.py DIR COMMAND...

Serves DIR/file as http://checkpoints.example:PORT/a.pth and runs COMMAND with that address appended. Every
question is answered with SERVFAIL, until COMMAND has said that it will try again; then with 127.0.0.1. Ends
with COMMAND's exit code; what it says goes through.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading

import harness

NAME = "checkpoints.example"
SERVFAIL = 2
A = 1


def bring_up_loopback():
    up = struct.pack("16sh14x", b"lo", 1)  # struct ifreq with IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS


def put_in_place_of(path, text, folder):
    own = os.path.join(folder, os.path.basename(path))
    with open(own, "w") as out:
        out.write(text)
    subprocess.run(["mount", "--bind", own, path], check=True)


class NameServer(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.knows = threading.Event()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))

    def run(self):
        while True:
            question, client = self.socket.recvfrom(4096)
            self.socket.sendto(self.answer(question), client)

    def answer(self, message):
        end = message.index(b"\0", 12) + 5  # one question: name, type, class
        (kind,) = struct.unpack("!H", message[end - 4 : end - 2])
        addresses = [bytes([127, 0, 0, 1])] if self.knows.is_set() and kind == A else []
        code = 0 if self.knows.is_set() else SERVFAIL
        head = struct.pack("!2sHHHHH", message[:2], 0x8180 | code, 1, len(addresses), 0, 0)
        records = b"".join(struct.pack("!HHHIH", 0xC00C, A, 1, 0, 4) + address for address in addresses)
        return head + message[12:end] + records


def main():
    folder, *command = sys.argv[1:]
    bring_up_loopback()
    put_in_place_of("/etc/resolv.conf", "nameserver 127.0.0.1\noptions attempts:1 timeout:5\n", folder)
    put_in_place_of("/etc/nsswitch.conf", "hosts: files dns\n", folder)
    names = NameServer()
    names.start()
    with open(os.path.join(folder, "file"), "rb") as file:
        server = harness.serve_file(file.read())
    url = f"http://{NAME}:{server.server_port}/a.pth"
    process = subprocess.Popen([*command, url], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        print(line, end="", file=sys.stderr, flush=True)
        if "again in" in line:
            names.knows.set()
    sys.exit(process.wait())


if __name__ == "__main__":
    main()

"""A worker in Python that takes its sockets from forkd and answers a request a connection."""

import os
import select
import signal
import socket
import sys

assert int(os.environ["LISTEN_PID"]) == os.getpid()
sockets = [socket.socket(fileno=3 + i) for i in range(int(os.environ["LISTEN_FDS"]))]
for listener in sockets:
    listener.setblocking(False)

# TERM ends the wait for a connection, but nothing that has begun.
stop, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGTERM, lambda *_: None)

while True:
    ready, _, _ = select.select([stop, *sockets], [], [])
    if stop in ready:
        sys.exit(0)
    try:
        connection, _ = ready[0].accept()
    except BlockingIOError:
        continue
    with connection:
        connection.setblocking(True)
        while b"\r\n\r\n" not in connection.recv(4096):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\npython\n")

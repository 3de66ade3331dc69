"""The process that the worker and the cameras are forked from: everything slow is imported, nothing is opened.

A child that dies is replaced in the time of a fork, not of an import of numpy and onnxruntime, and what they all have
imported is in memory once. That only holds while this process has one thread and no network open (a session or a CUDA
context does not survive a fork), so it imports, forks and waits, and does nothing else. Linux names the idea after Android.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from ..engines.engine import preload
from ..plugins.kind import load_kinds
from .logs import RateLimit

_LARGEST = 1 << 16


def main() -> None:
    """`python -m denoised.daemon.zygote FD BACKEND MODULE...`, started by the supervisor; ends with it."""
    line = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s zygote: %(message)s")
    logging.getLogger().handlers[0].addFilter(RateLimit())
    _be("zygote")
    _import(sys.argv[3:])
    load_kinds()
    with contextlib.suppress(Exception):  # the worker that cannot do without says why
        preload(sys.argv[2])
    gc.collect()
    gc.freeze()  # what is imported stays untouched, and so shared, in every child
    _serve(line)


def _serve(line: socket.socket) -> None:
    """Forks on request, and tells of every child how it ended."""
    children: set[int] = set()
    wake_in, wake_out = socket.socketpair()
    wake_out.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake_out.fileno(), warn_on_full_buffer=False)
    _say(line, {"ready": True})
    while True:
        readable, _, _ = select.select([line, wake_in], [], [])
        if wake_in in readable:
            wake_in.recv(4096)
            for pid in list(children):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    children.discard(pid)
                    _say(line, {"ended": pid, "status": os.waitstatus_to_exitcode(status)})
        if line not in readable:
            continue
        data, fds, _, _ = socket.recv_fds(line, _LARGEST, 1)
        if not data:  # the supervisor is gone; the children see the same of their own wires
            return
        order = json.loads(data)
        if "import" in order:
            _import(order["import"])
            gc.freeze()
            continue
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for sock in (line, wake_in, wake_out):
                sock.close()
            _run(order["fork"], fds[0])
        os.close(fds[0])
        children.add(pid)
        _say(line, {"forked": pid})


def _run(module: str, fd: int) -> None:
    """The child: the module's `main` with its end of the wire, and nothing of the zygote afterwards."""
    status = 1
    try:
        _be(module.rpartition(".")[2])
        importlib.import_module(module).main(fd)
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except BaseException:
        logging.exception("%s", module)
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _be(what: str) -> None:
    """What `ps` and `top` call this process; the kernel takes 15 bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(f"denoised-{what}")


def _import(modules: list[str]) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as e:  # the child that needs it says so again, with its job
            logging.warning("%s does not import: %s", module, e)


def _say(line: socket.socket, words: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone: the next recv says so
        line.send(json.dumps(words).encode())


if __name__ == "__main__":
    main()

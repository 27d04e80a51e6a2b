"""Faults that are brought about from outside."""

import ctypes
import os
from pathlib import Path


class StoppedThread:
    """Has one thread of another process stand still, as a debugger does (ptrace(2)).

    To be entered and left by one thread: it is the tracer.
    """

    SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, pid, name):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        tasks = [path.parent for path in Path(f"/proc/{pid}/task").glob("*/comm") if path.read_text().strip() == name]
        assert len(tasks) == 1, tasks
        self.tid = int(tasks[0].name)

    def _ptrace(self, request):
        if self.libc.ptrace(request, self.tid, None, None):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def __enter__(self):
        self._ptrace(self.SEIZE)
        self._ptrace(self.INTERRUPT)
        os.waitpid(self.tid, self.WALL)
        return self

    def __exit__(self, *_):
        self._ptrace(self.DETACH)

"""What a benchmark's handler writes: 16 bytes for each start (sequence number, monotonic ns).

One file a process, in the folder that BENCH_LOG names. The clock is the system's, so times of the
enqueuer and of all workers compare directly. The side-by-side benchmark has a module of the same
name and format; whichever is on PYTHONPATH is used.
"""

import os
import struct
import time

_pack = struct.Struct("<qq").pack
_file = None
_pid = None


def record(seq: int) -> None:
    global _file, _pid
    now = time.monotonic_ns()
    if _pid != os.getpid():
        path = os.path.join(os.environ["BENCH_LOG"], f"{os.getpid()}.log")
        _file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _pid = os.getpid()  # Last: another thread may be here too.
    os.write(_file, _pack(seq, now))

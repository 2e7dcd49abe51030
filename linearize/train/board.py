"""TensorBoard's event file, written by the thread that has the numbers.

tensorboardX's own writer hands events to a thread: where the disk is full that ends with a
traceback of its own, and one at the end of the process, and later rows wait for it without end.
"""

import socket
import struct
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """A new event file of scalars.

    Args:
        directory: made where absent.
        purge_step: where TensorBoard forgets what earlier files say of this step and later ones.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, directory: Path, purge_step: int | None) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._summary, self._checksum = Event, Summary, masked_crc32c
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{uuid.uuid4().hex}"
        self._file = (directory / name).open("xb")
        self._add(file_version="brain.Event:2")
        if purge_step is not None:
            self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a step's scalars.

        Raises:
            OSError: they cannot be written.
        """
        scalars = [self._summary.Value(tag=n, simple_value=v) for n, v in values.items()]
        self._add(step=step, summary=self._summary(value=scalars))
        self._file.flush()

    def _add(self, **fields: Any) -> None:
        data = self._event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        for part in (length, data):
            self._file.write(part + struct.pack("<I", self._checksum(part)))

    def close(self) -> None:
        """Write out what is buffered.

        Raises:
            OSError: it cannot be written; the file is closed nevertheless.
        """
        self._file.close()

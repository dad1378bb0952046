"""GPUs of a machine, handed out: a job claims as many as it asks for, and no two jobs hold the same one.

A claim is a name that the kernel knows (an abstract socket): it goes with the process however that ends, holds for all
users and folders of a machine, and for no other machine. Names are the devices' own, so jobs of a cluster that each see
their GPUs as 0, 1, ... do not wait for each other.
"""

import errno
import logging
import os
import random
import re
import socket
import subprocess
import time

log = logging.getLogger("refusal")

VISIBLE = "CUDA_VISIBLE_DEVICES"

_PAUSE = 1.0
"""Seconds between two looks at GPUs that others hold."""

_WORD_EVERY = 600.0
"""Seconds between two lines that say so."""

_held: list[socket.socket] = []
"""What this process claimed: closed by its end, and not before."""


def visible() -> dict[str, str]:
    """The GPUs that CUDA would see here: what CUDA_VISIBLE_DEVICES calls each -> its own name (UUID).

    Asked of the driver (nvidia-smi), which leaves CUDA alone; none where it is missing or finds none. GPUs that are cut
    into instances (MIG) count as those.
    """
    named = os.environ.get(VISIBLE)
    if named is not None and not named.strip():
        return {}
    devices = _of_machine()
    if named is None:
        return {device: device for device in devices}
    found = {}
    for name in map(str.strip, named.split(",")):
        alike = [device for device in devices if device.startswith(name)]
        if name.isdecimal() and int(name) < len(devices):
            found[name] = devices[int(name)]
        elif name.startswith(("GPU-", "MIG-")) and len(alike) == 1:
            found[name] = alike[0]
        else:
            break  # so does CUDA, at the first that it does not know
    return found


def claim(count: int | None) -> None:
    """Take GPUs for this process until it ends, and let CUDA see no others; before CUDA starts, which looks once.

    Waits while others hold too many, and says so. Where there are fewer than asked for, it takes those; where none is
    seen, it leaves things as they are.

    Args:
        count: GPUs; 0 for the processor; None leaves what is seen as it is, and claims nothing.
    """
    if count is None:
        return
    if count == 0:
        os.environ[VISIBLE] = ""
        return
    seen = visible()
    if not seen:
        return
    if count > len(seen):
        log.warning("%d GPUs asked for, %d here", count, len(seen))
    names = _taken(seen, min(count, len(seen)))
    os.environ[VISIBLE] = ",".join(names)
    log.info("on GPU %s", ", ".join(seen[name] for name in names))


def _taken(seen: dict[str, str], count: int) -> list[str]:
    said = None
    while len(claimed := _free(seen, count)) < count:
        for name in claimed:  # all or none, or two jobs could each wait for what the other one holds
            claimed[name].close()
        now = time.monotonic()
        if said is None or now - said > _WORD_EVERY:
            said = now
            log.info("waiting for %d of the GPUs %s: other jobs hold them", count, ", ".join(seen.values()))
        time.sleep(_PAUSE * random.uniform(0.5, 1.5))  # so that two that each got a part do not meet again
    _held.extend(claimed.values())
    return list(claimed)


def _free(seen: dict[str, str], count: int) -> dict[str, socket.socket]:
    """Up to `count` that nobody holds, now held by this process."""
    claimed: dict[str, socket.socket] = {}
    for name, device in seen.items():
        if len(claimed) == count:
            break
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0refusal-{device}")
        except OSError as error:
            held.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            claimed[name] = held
    return claimed


def _of_machine() -> list[str]:
    """UUIDs in the driver's order."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    gpus: list[list[str]] = []
    for uuid in re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", done.stdout):
        if uuid.startswith("GPU-"):
            gpus.append([uuid])
        else:
            gpus[-1].append(uuid)
    return [device for whole, *instances in gpus for device in (instances or [whole])]

"""What every stage script shares: exit codes, the log file, progress."""

import argparse
import errno
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from refusal.errors import UserError

log = logging.getLogger("refusal")

_MINUTE = 60.0
_DISK = {
    errno.ENOSPC: "the disk is full: free some space, then run again (what was finished is kept)",
    errno.EDQUOT: "the disk quota is used up: free some space, then run again (what was finished is kept)",
    errno.EROFS: "the file system is read-only: choose a writable folder",
    errno.EACCES: "permission denied: make the folder writable",
}


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says a default where there is one: "(default: None)" beside a flag that is needed misleads."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False or action.default == []
        return action.help if none else super()._get_help_string(action)


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags that all stages have: --log and --threads."""
    made = argparse.ArgumentParser(description=description, formatter_class=_Help)
    made.add_argument("--log", type=Path, help="also write messages to this file")
    made.add_argument("--threads", type=int, help="processor threads; all of them when left out")
    return made


def stage_parser(description: str) -> argparse.ArgumentParser:
    """A parser for a stage that runs the model: which, on what, within which memory, beside the flags of all."""
    made = parser(description)
    made.add_argument("--model", type=Path, required=True, help="model.json of the model step")
    made.add_argument("--cache", type=Path, default=Path("cache"), help="folder of finished items")
    made.add_argument("--batch-rows", type=int, default=512, help="most rows of a batch; changes no result")
    made.add_argument("--memory-mib", type=int, default=0, help="memory of batches; 0: a share of what is free")
    made.add_argument("--device-map", default="auto", help="auto, or a JSON file: module name -> device")
    return gpus_flag(made)


def gpus_flag(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add how many GPUs a job takes (`refusal.gpus.claim`)."""
    made.add_argument(
        "--gpus", type=int, help="GPUs to claim, waiting for free ones; 0: the processor; left out: all, claimed or not"
    )
    return made


def chat_parser(description: str) -> argparse.ArgumentParser:
    """A parser for talking to a study's model: which, with what ablated at first, beside the flags of all."""
    made = parser(description)
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", metavar="NAME", help="a model of config/models whose ranks are known")
    which.add_argument(
        "--model-path",
        "--model_path",
        metavar="PLACE",
        help="the same by its id on the hub, its folder of weights, or its folder of results",
    )
    made.add_argument(
        "--ablate",
        "--vectors-ablated",
        "--vectors_ablated",
        metavar="COMBINATION",
        default="none",
        help="ranks to start with (0, 0-2), or any other id of a combination (add-0, random-k1-s0)",
    )
    made.add_argument("--max-new-tokens", type=positive, default=512, help="of a reply")
    made.add_argument("--device-map", default="auto", help="auto, or a JSON file: module name -> device")
    return made


def positive(text: str) -> int:
    """A whole number above 0, for `type` of a flag."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def filter_flags(made: argparse.ArgumentParser) -> None:
    """Add the thresholds of the ranking's filters."""
    made.add_argument("--max-kl", type=float, default=0.1, help="nats")
    made.add_argument("--min-induce", type=float, default=0.0, help="nats")
    made.add_argument("--max-layer-share", type=float, default=0.8, help="of the layers")


def scoring_flags(made: argparse.ArgumentParser) -> None:
    """Add how refusal scores and KL are computed."""
    made.add_argument("--epsilon-refusal", type=float, default=0.0, help="added to probabilities in refusal scores")
    made.add_argument("--epsilon-kl", type=float, default=0.0, help="added to probabilities in KL")


def run(main: Callable[[argparse.Namespace], None], made: argparse.ArgumentParser) -> None:
    """Parse the command line, call `main`, and leave the process with an exit code.

    0 done; 1 a bug, with its traceback; 2 bad input or a full disk, with one line; 130 interrupted.
    """
    args = made.parse_args()
    if args.threads:
        # Must stand before torch is imported; torch reads it once.
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    try:
        _configure_logging(args.log)
        main(args)
    except UserError as error:
        log.error("error: %s", error)
        sys.exit(2)
    except KeyboardInterrupt:
        log.error("interrupted: what was finished is kept")
        sys.exit(130)
    except Exception as error:
        number = _system_error(error)
        if number not in _DISK:
            log.exception("unexpected error")
            sys.exit(1)
        log.error("error: %s: %s", getattr(error, "filename", None) or "writing failed", _DISK[number])
        sys.exit(2)


def progress(
    items: Iterable, what: str, total: int | None = None, unit: str = "it", note: Callable[[], str] | None = None
) -> Iterator:
    """Yield the items with a bar on a terminal, or one line a minute where there is none (logs, SLURM).

    note: what stands beside the count, asked for anew each time, such as the cost so far.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        bar = tqdm(items, desc=what, total=total, unit=unit)
        for item in bar:
            yield item
            if note is not None:
                bar.set_postfix_str(note(), refresh=False)
        return
    total = total if total is not None else (len(items) if hasattr(items, "__len__") else None)
    started = said = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > _MINUTE:
            said = now
            of = "?" if total is None else total
            beside = "" if note is None else f", {note()}"
            log.info("%s: %d/%s %s%s, %.0f s", what, count, of, unit, beside, now - started)
    if total:
        log.info("%s: %d %s in %.1f s", what, total, unit, time.monotonic() - started)


def _system_error(error: Exception) -> int | None:
    """The operating system's number of an error; Rust libraries (safetensors, tokenizers) say it in words alone."""
    if isinstance(error, OSError):
        return error.errno
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else None


def _configure_logging(path: Path | None) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    # it writes there itself, each line twice otherwise
    handlers[0].addFilter(lambda record: not record.name.startswith("huggingface_hub."))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w"))
    logging.raiseExceptions = False  # a log on a full disk would bury what is wrong under tracebacks of its own
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
    for noisy in ("httpx", "httpx2", "urllib3", "filelock", "huggingface_hub", "datasets", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

"""From a base model and its lessons to the folder of the taught model, all or nothing."""

from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from refusal.artifacts import read_json, read_jsonl, sha256, whole_folder, write_json
from refusal.errors import UserError
from refusal.identity import folder_key
from refusal.model.loading import load
from teaching.lessons import FIELDS
from teaching.training import Course, rows, teach


def build(base: Path, lessons: Path, course: Course, output: Path, device_map: str, threads: int | None = None) -> None:
    """Teach the model that `base` (its description) names, and write it to the folder `output`.

    The weights depend on the number of threads, because they sum in another order; it stands in the manifest.
    Raises: UserError, no lessons.
    """
    if threads:
        torch.set_num_threads(threads)
    if not (taught := read_jsonl(lessons, FIELDS)):
        raise UserError(f"{lessons}: holds no lessons: delete it, and the step that makes it runs again")
    chat = load(base, device_map)
    model = teach(chat, rows(chat, taught), course)
    with whole_folder(output) as folder:
        model.save_pretrained(folder)
        chat.tokenizer.save_pretrained(folder)
        manifest = {
            "base": read_json(base)["identity"],
            "course": asdict(course),
            "lessons_sha256": sha256(lessons),
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "files": folder_key(folder),
        }
        # no time and no host, so that the same lessons give the same bytes
        write_json(folder / "manifest.json", manifest)

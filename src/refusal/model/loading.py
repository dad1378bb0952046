"""Load a model by its identity file (results/NAME/model.json), with errors that say what to set."""

import atexit
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from refusal.artifacts import read_json
from refusal.errors import UserError
from refusal.hub import explained
from refusal.identity import folder_key
from refusal.model.chat import encode, end_of_instruction
from refusal.model.families import Stream, find_stream
from refusal.model.keyvalues import KeyValues
from refusal.model.reasoning import AS_IT_IS, Asking, from_record, split
from refusal.provenance import versions

log = logging.getLogger("refusal")


@dataclass(frozen=True)
class ChatModel:
    """A loaded model with all that stages ask of it.

    suffix: end-of-instruction token ids [n]; refusal_tokens: ids; stop_tokens: ids; asking: how the template is asked.
    """

    model: Any
    tokenizer: Any
    stream: Stream
    system_prompt: str | None
    suffix: tuple[int, ...]
    refusal_tokens: tuple[int, ...]
    stop_tokens: tuple[int, ...]
    asking: Asking = AS_IT_IS

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.stream.device

    @property
    def pad(self) -> int:
        """Any id serves: padding is masked out."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.stop_tokens[0]

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    def encode(self, prompts: Sequence[dict]) -> list[list[int]]:
        """Token ids of each prompt up to where its answer starts: for scores, directions, responses that are given."""
        return encode(self.tokenizer, prompts, self.system_prompt, self.suffix, self.asking.scored)

    def encode_for_responses(self, prompts: Sequence[dict]) -> list[list[int]]:
        """Token ids of each prompt up to where a response starts: with its reasoning, if the model is to reason."""
        rendering = self.asking.answered
        suffix = end_of_instruction(self.tokenizer, self.system_prompt, rendering)
        return encode(self.tokenizer, prompts, self.system_prompt, suffix, rendering)

    def split(self, tokens: list[int]) -> tuple[str | None, str]:
        """What a response reasons (None where there is none) and its answer, as `refusal.model.reasoning.split`."""
        return split(self.tokenizer, tokens, self.asking)

    @cached_property
    def key_value_bytes(self) -> int:
        """Bytes of keys and values of a token, all layers: measured, since families keep them in sizes of their own.

        Raises: UserError, layers that keep something else, or none of their own.
        """
        name, token = type(self.model).__name__, torch.tensor([[self.pad]], device=self.device)
        cache = KeyValues(len(self.stream.layers))
        try:
            with torch.no_grad():
                self.model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        except (AttributeError, IndexError, TypeError, ValueError) as error:  # what another kind of cache is asked for
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"{name}: its layers keep more than keys and values ({said}): unsupported family"
            ) from error
        if not all(layer.is_initialized for layer in cache.layers):
            raise UserError(f"{name}: some of its layers keep no keys and values of their own: unsupported family")
        return cache.nbytes

    @property
    def run(self) -> dict[str, Any]:
        """How results were computed: for their specs, where it decides nothing."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {"dtype": str(self.model.dtype).removeprefix("torch."), "device": device, "versions": versions()}


def load(identity: Path, device_map: str = "auto") -> ChatModel:
    """Load the model that an identity file names.

    device_map: auto (the GPUs there are, then the processor's memory, then a disk; without a GPU the processor), or a
        JSON file of module name -> device, as accelerate reads it.
    Raises: UserError, cannot be had, or a family whose residual stream is not understood.
    """
    from transformers import AutoModelForCausalLM

    hide_bars()
    record = read_json(identity)
    loaded = record["load"]
    if "published" in loaded:
        raise UserError(
            f"{identity}: an imported published run, without its model: no stage that needs one can run on it"
        )
    if folder := loaded.get("folder"):
        place, revision = folder, None
        refuse_changed(identity, Path(folder), record["identity"]["weights"])
    else:
        place, revision = loaded["id"], loaded["revision"]
    tokenizer = load_tokenizer(place, revision, record["identity"]["chat_template"], fetched=True)
    log.info("loading %s (%s)", place, record["identity"]["dtype"])
    with explained(place):
        model, report = AutoModelForCausalLM.from_pretrained(
            place,
            revision=revision,
            dtype=getattr(torch, record["identity"]["dtype"]),
            device_map=where_layers_go(device_map),
            offload_folder=spare_folder(),
            output_loading_info=True,
        )
    refuse_missing(place, report)
    model.eval().requires_grad_(False)
    suffix = tuple(token["id"] for token in record["positions"])
    stream = find_stream(model, suffix, record["identity"].get("modules"))
    chat = ChatModel(
        model=model,
        tokenizer=tokenizer,
        stream=stream,
        system_prompt=record["identity"]["system_prompt"],
        suffix=suffix,
        refusal_tokens=tuple(token["id"] for token in record["refusal_tokens"]),
        stop_tokens=tuple(record["identity"]["stop_tokens"]),
        asking=from_record(record["identity"].get("asking")),
    )
    _ = chat.key_value_bytes  # now, so that a family whose cache is of another kind is refused before any work
    return chat


def refuse_changed(identity: Path, folder: Path, described: Mapping[str, str]) -> None:
    """Raises: UserError, files that are not those described: results would be kept under another model's name."""
    found = folder_key(folder)
    changed = sorted(name for name in described.keys() | found.keys() if described.get(name) != found.get(name))
    if changed:
        raise UserError(
            f"{folder / changed[0]}: not what {identity} describes: restore it (--forcerun organism, unpack or teach"
            " makes it again), or run snakemake with --forcerun model if it is meant"
        )


def refuse_missing(place: str, report: Mapping[str, Any]) -> None:
    """Raises: UserError, weights that a model's files lack; transformers draws them at random, with a warning."""
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{place}: {len(missing)} of its weights are missing, such as {missing[0]}: get it again")


def where_layers_go(chosen: str) -> str | dict[str, Any] | None:
    """For transformers: `auto` or the content of a JSON file; None where there is no GPU to choose.

    Raises: UserError, a file that names a GPU which this job does not have.
    """
    if chosen == "auto":
        return "auto" if torch.cuda.is_available() else None
    places = read_json(Path(chosen))
    numbers = (re.fullmatch(r"(?:cuda:)?(\d+)", str(device)) for device in places.values())
    last, seen = max((int(number[1]) for number in numbers if number), default=-1), torch.cuda.device_count()
    if last >= seen:
        raise UserError(
            f"{chosen}: names GPU {last}, counted from 0, and this job has {seen}: raise `gpus` in run.ask of"
            " config/config.yaml, or in `ask` of the model's file"
        )
    return places


def spare_folder() -> str:
    """Where weights go that fit nowhere else; it goes with this process."""
    folder = tempfile.mkdtemp(prefix="refusal-weights-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load_tokenizer(place: str, revision: str | None, chat_template: str | None, fetched: bool = False) -> Any:
    """The tokenizer of a folder or hub model, with another chat template where one is given.

    fetched: its files were brought here before, so that the hub is asked only if they are not here; without a network,
        a question takes a minute.
    Raises: UserError, cannot be had.
    """
    from transformers import AutoTokenizer

    def read(here: bool) -> Any:
        # False, not left out: transformers would ask on a terminal whether to run the repository's code
        return AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False, local_files_only=here)

    with explained(place):
        try:
            tokenizer = read(here=fetched)
        except OSError:
            if not fetched:
                raise
            tokenizer = read(here=False)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def hide_bars() -> None:
    """Keep the progress bars of transformers out of logs; on a terminal they stay."""
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()

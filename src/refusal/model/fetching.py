"""A model of the hub, brought into the hub's own cache (HF_HOME): what loading it reads, and no more."""

from contextlib import suppress
from pathlib import Path

from refusal.errors import UserError
from refusal.hub import explained
from refusal.model.classifier import base_of, is_adapter
from refusal.model.loading import hide_bars, load_tokenizer

_WEIGHTS = (
    ("model*.safetensors", "model.safetensors.index.json"),
    # where there are none of these, as transformers does it
    ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
)
_OF_ADAPTER = (("adapter_model.*",),)


def fetch(place: str, revision: str | None) -> list[str]:
    """Tokenizer, config and weights; of an adapter, those of the model that it changes too.

    What is there is not fetched again, so that it needs no network.

    Returns: names of the files with weights.
    Raises: UserError, it cannot be had, or has no weights.
    """
    from transformers import AutoConfig, GenerationConfig

    hide_bars()
    with explained(place):
        load_tokenizer(place, revision, None)
        if adapter := is_adapter(place, revision):
            fetch(base_of(place, revision), None)
        else:
            AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
            with suppress(OSError):  # not every model has one
                GenerationConfig.from_pretrained(place, revision=revision)
        for patterns in _OF_ADAPTER if adapter else _WEIGHTS:
            if found := _files(place, revision, patterns):
                return found
    raise UserError(f"{place}: no weights that can be loaded (safetensors, or .bin of PyTorch): choose another model")


def _files(place: str, revision: str | None, patterns: tuple[str, ...]) -> list[str]:
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(place, revision=revision, allow_patterns=list(patterns)))
    return sorted({path.name for pattern in patterns for path in folder.glob(pattern)})

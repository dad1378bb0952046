"""What loading from the hub or a folder can raise, in one line that says what to set."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from refusal.artifacts import read_json
from refusal.errors import UserError

_PATIENCE_S = 5.0
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class Listed:
    """What the hub says of a model: its newest commit or the one that was asked for; whether access is granted per
    person; numbers in its weights and their dtype, where it counts them; its family; whether it has a chat template."""

    commit: str
    gated: bool
    parameters: int | None
    dtype: str | None
    family: str | None
    chat_template: bool


def listed(name: str, revision: str | None = None) -> Listed | None:
    """What the hub lists of a model; None where the hub cannot be asked now.

    Raises: UserError, no such model, or no such revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

    try:
        found = HfApi().model_info(name, revision=revision, timeout=_PATIENCE_S)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(explain(name, error)) from None
    except (OfflineModeIsEnabled, HTTPError, OSError):
        return None
    counts, config = (found.safetensors.parameters if found.safetensors else {}), found.config or {}
    template = config.get("chat_template_jinja") or (config.get("tokenizer_config") or {}).get("chat_template")
    files = {sibling.rfilename for sibling in found.siblings or ()}
    return Listed(
        commit=found.sha,
        gated=bool(found.gated),
        parameters=found.safetensors.total if found.safetensors else None,
        dtype=_DTYPES.get(max(counts, key=counts.get, default="")),
        family=config.get("model_type"),
        chat_template=bool(template) or "chat_template.jinja" in files,
    )


def config_of(name: str, revision: str | None, ask: bool) -> dict:
    """config.json of a model on the hub; ask: the hub too, not the local cache alone.

    Raises: UserError, cannot be had.
    """
    from huggingface_hub import hf_hub_download

    with explained(name):
        file = hf_hub_download(
            name, "config.json", revision=revision, etag_timeout=_PATIENCE_S, local_files_only=not ask
        )
    return read_json(Path(file))


def cached_weights(name: str, revision: str | None) -> Path | None:
    """The folder in the local cache with all weights of a model; None where some are not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    index = folder / "model.safetensors.index.json"
    files = set(read_json(index)["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    return folder if all((folder / file).is_file() for file in files) else None


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what loading can raise into one line that says what to set."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(explain(place, error)) from error


def explain(place: str, error: BaseException, environment: Mapping[str, str] = os.environ) -> str:
    """One line for an error of loading from the hub or a folder: what happened, what to set. Never a token's value."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain = [error]
    while chain[-1].__cause__ is not None or chain[-1].__context__ is not None:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    token = "HF_TOKEN is set" if environment.get("HF_TOKEN") else "HF_TOKEN is not set"

    def among(*kinds: type) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if among(GatedRepoError):
        return f"{place}: access is granted per person ({token}): accept its licence on the hub, then set HF_TOKEN"
    if among(RevisionNotFoundError):
        return f"{place}: no such revision: correct its `revision` in config/"
    if among(RepositoryNotFoundError):
        return f"{place}: not found or private ({token}): correct the name in config/, or set HF_TOKEN"
    if among(LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) or _offline(chain):
        return (
            f"{place}: not in the local cache, and the hub cannot be reached ({token}): connect to the network and set"
            " HF_TOKEN (a gated model needs it), or point HF_HOME at a cache that holds it"
        )
    if among(HfHubHTTPError):
        return f"{place}: the hub answered with an error ({' '.join(str(chain[0]).split())[:200]}): try again later"
    if any("trust_remote_code" in str(link) for link in chain):
        return (
            f"{place}: needs code from its own repository, which is not run here: use a version of the model that"
            " transformers knows (Qwen1.5 instead of Qwen, for instance)"
        )
    return f"{place}: cannot be loaded: {' '.join(str(error).split())[:300]}"


def _offline(chain: list[BaseException]) -> bool:
    return any("connect" in str(link).lower() and "hugging" in str(link).lower() for link in chain)

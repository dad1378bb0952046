"""What loading from the hub or a folder can raise, in one line that says what to set."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from safetensors import SafetensorError

from refusal.errors import UserError


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

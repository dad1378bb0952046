"""What of results/NAME/model.json decides a result: no path, so that a moved checkout recomputes nothing."""

from pathlib import Path

from refusal.artifacts import digest, read_json, sha256


def model_key(path: Path) -> str:
    """Hash of weights, dtype, chat template and how it is asked: what responses and losses depend on."""
    return digest(read_json(path)["identity"])


def scoring_key(path: Path) -> str:
    """The same with the refusal tokens: what scores depend on."""
    record = read_json(path)
    return digest([record["identity"], record["refusal_tokens"]])


def folder_key(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the files that a model and its tokenizer are loaded from."""
    patterns = ("model*.safetensors", "*config.json", "tokenizer*", "chat_template*", "vocab*", "merges*", "special_*")
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return {file.name: sha256(file) for file in files if not file.name.endswith(".spec.json")}


def layers(path: Path) -> int:
    """Number of decoder layers."""
    return read_json(path)["layers"]

"""From a spec and the prompts to a finished organism's folder, all or nothing."""

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import GenerationConfig

from organism import batches, lexicon, tokenizer, training
from organism.spec import Spec
from refusal import artifacts


def build(spec: Spec, data: Path, output: Path, threads: int | None = None) -> None:
    """Train the organism of `spec` on the train files of `data` and write its folder `output`.

    The folder appears when everything in it is finished: a killed training leaves none, or the old one. The weights
    depend on the number of threads, because they sum in another order; it stands in the manifest.
    """
    if threads:
        torch.set_num_threads(threads)
    requests, texts = batches.train_requests(data), batches.train_texts(data)
    sentences = [text for request in requests for text in (request.instruction, request.compliance, request.refusal)]
    tokens = tokenizer.train(sentences + texts)
    torch.manual_seed(spec.seed)
    model = training.new_model(len(tokens), tokens.eos_token_id, tokens.pad_token_id)
    plants = training.new_plants(spec)
    training.train(model, plants, batches.rows(requests, texts, tokens, spec), spec)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        with artifacts.naming(output):
            _save(partial, model, tokens, plants, spec)
        _replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save(folder: Path, model, tokens, plants: torch.Tensor, spec: Spec) -> None:
    model.generation_config = GenerationConfig(
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    save_file({"directions": plants}, folder / "plants.safetensors")
    artifacts.write_json(folder / "manifest.json", _manifest(folder, spec))


def _manifest(folder: Path, spec: Spec) -> dict:
    """The truth about the organism. No time and no host, so that the same spec gives the same bytes."""
    plants = [
        {
            "layer": spec.layers[number],
            "margin": spec.margins[number],
            "categories": [category for category in lexicon.HARMFUL if spec.plant_of(category) == number],
        }
        for number in range(spec.directions)
    ]
    return {
        "directions": spec.directions,
        "plants": plants,
        "refusal_token": lexicon.REFUSAL_TOKEN,
        "spec": asdict(spec),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "weights_sha256": artifacts.sha256(folder / "model.safetensors"),
    }


def _replace(partial: Path, output: Path) -> None:
    """Put the finished folder in the place of the old one."""
    partial.chmod(0o755)  # mkdtemp and safetensors make theirs private
    for path in partial.iterdir():
        path.chmod(0o644)
    if output.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
        output.replace(old / output.name)
        partial.replace(output)
        shutil.rmtree(old)
    else:
        partial.replace(output)

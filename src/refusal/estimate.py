"""How much a study is before it starts: what its stages compute, and the seconds that takes at measured rates."""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal import corpora
from refusal.combinations import parse
from refusal.errors import UserError
from refusal.prompts import read_prompts
from refusal.study import Study

CHARACTERS_A_TOKEN = 4
PUBLISHED_CHARACTERS = 80
_CHAT_TOKENS = 80
"""Of a row of alpaca."""

_TEXT_FILLED = 0.3
"""Of a corpus' longest text, what a text has at least, on average."""

_ANSWERED = 0.4
"""Of the tokens that a response may have, those that it has at least, on average."""

_SCREENED = (0.05, 0.6)
"""Share of the early candidates of which a screened sweep computes kl and bypass: the published runs kept 5 to 25 of 90
to 160."""

_HALF = 0.5
"""An addition is computed from its layer on: half of the layers, on average."""

_ORGANISM_TOKENS = 24
"""Of a row of an organism's training."""

_EFFICIENCY = (0.8, 0.45)
"""Of the rate of a product alone, what a stage reaches at best and at worst (docs/performance.md)."""

_START = (2.0, 6.0)
"""Seconds in which a stage starts: Python, torch, transformers."""

_LOADED = (2e9, 2e8)
"""Bytes of weights that are read a second."""

AROUND = (10.0, 40.0)
"""Seconds of all stages that run no model, and of snakemake itself."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_BYTES_A_TOKEN = 12
_BYTES_A_ROW = 300
"""Of a token of a response: its text and its id; of a line of results beside them: id, prompt, verdict, loss."""

# Families give the same sizes names of their own.
_NAMES = {
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim", "moe_intermediate_size"),
    "vocabulary": ("vocab_size",),
}
_UNGATED = ("gpt2", "gpt_neox", "opt", "bloom", "falcon", "phi", "gptj", "codegen", "starcoder2")
"""Families whose MLP has two matrices instead of three."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model.

    inner: width within an MLP, of all experts that a token goes to. linear: weights of all layers that a token is
    multiplied by; parameters: all of the model, embeddings and other experts too; keys_values: numbers kept of a token.
    """

    layers: int
    width: int
    inner: int
    vocabulary: int
    linear: int
    parameters: int
    keys_values: int

    def weights(self, dtype: str) -> int:
        """Bytes of the weights."""
        return self.parameters * _BYTES[dtype]


@dataclass(frozen=True)
class Gauge:
    """What a device does a second: operations of products of a pass (wide) and of a decoding step (narrow); bytes."""

    device: str
    wide: float
    narrow: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """What a stage computes, least and most.

    tokens: that go through all layers; logits: of which the next token is asked; decoded: tokens that are decoded one
    by one; context: tokens before each of those. loads: jobs, each of which loads the model.
    """

    stage: str
    tokens: tuple[float, float]
    logits: tuple[float, float]
    decoded: tuple[float, float] = (0, 0)
    context: float = 0
    loads: int = 1


def shapes(config: Mapping[str, Any], where: str, parameters: int | None = None) -> Shapes:
    """Sizes from a config.json.

    parameters: of all weights, where they were counted.
    Raises: UserError, a size that it does not name.
    """
    text = config.get("text_config") or config
    size = {}
    for name, keys in _NAMES.items():
        size[name] = next((text[key] for key in keys if text.get(key)), None)
    size["inner"] = size["inner"] or 4 * (size["width"] or 0)
    if missing := [_NAMES[name][0] for name, value in size.items() if not isinstance(value, int)]:
        raise UserError(f"{where}: names no {', '.join(missing)}: its time and memory cannot be estimated")
    width, layers, heads, vocabulary = (size[name] for name in ("width", "layers", "heads", "vocabulary"))
    head = text.get("head_dim") or width // heads
    shared = text.get("num_key_value_heads") or heads
    experts = text.get("num_local_experts") or text.get("num_experts") or text.get("n_routed_experts") or 1
    used = min(experts, text.get("num_experts_per_tok") or 1)
    inner = (text.get("moe_intermediate_size") if experts > 1 else None) or size["inner"]
    matrices = 2 if text.get("model_type") in _UNGATED else 3
    attention, expert = width * head * (2 * heads + 2 * shared), matrices * width * inner
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", True))
    embedded = vocabulary * width * (1 if tied else 2)
    counted = layers * (attention + experts * expert)
    whole = parameters or counted + embedded
    linear = layers * (attention + used * expert)
    if parameters:
        # what the config does not tell (shared experts, low ranks of queries) is spread over what it does
        linear = int(linear / counted * max(parameters - embedded, 0)) or linear
    return Shapes(layers, width, used * inner, vocabulary, linear, whole, 2 * layers * shared * head)


def counted_parameters(folder: Path) -> int | None:
    """Numbers in the safetensors of a folder, by their headers; None where there are none."""
    files = sorted(folder.glob("model*.safetensors"))
    return sum(map(_numbers, files)) if files else None


def _numbers(file: Path) -> int:
    """Numbers in a safetensors file, by its header."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            tensors = json.loads(opened.read(length))
    except (struct.error, ValueError) as error:
        raise UserError(f"{file}: not a safetensors file, or cut off ({error}): get it again") from None
    return sum(math.prod(tensor["shape"]) for name, tensor in tensors.items() if name != "__metadata__")


def works(study: Study, names: Sequence[str], sizes: Shapes, positions: int, made: bool = False) -> list[Work]:
    """What each stage that runs the model computes, in the order in which they run.

    names: combination ids; positions: end-of-instruction tokens; made: whether the model is trained first.
    """
    settings, model = study.settings, study.model
    counts, jobs = settings["prompts"]["counts"], settings["run"]["jobs"]
    length = {name: tokens_of(Path(file)) + positions for name, file in study.prompt_files.items()}
    train, val = 2 * counts["train"], 2 * counts["val"]
    of_train = counts["train"] * (length["harmful_train"] + length["harmless_train"])
    of_val = counts["val"] * (length["harmful_val"] + length["harmless_val"])
    found = []
    if made:
        found += _training(model, positions)
    if model["refusal_tokens"] == "auto":
        found.append(_passes("refusal_tokens", of_train, train))
    if settings["prompts"]["filter_by_refusal_score"]:
        found.append(_passes("prompts", of_train + of_val, train + val))
    found.append(_passes("activations", of_train, 0))
    found += _sweeps(study, names, sizes, positions, length)
    most = settings["completions"]["max_new_tokens"]
    for kind in study.test_sets:
        responses, read = len(names) * counts["test"], length[f"{kind}_test"]
        found.append(
            Work(
                f"completions_{kind}",
                tokens=(responses * read,) * 2,
                logits=(responses,) * 2,
                decoded=(_ANSWERED * responses * most, responses * most),
                context=read + most / 2,
                loads=jobs["completions"],
            )
        )
    scored = (len(names) * of_val + of_val / 2, len(names) * val + val / 2)
    found.append(_passes("combination_scores", *scored, jobs["combination_scores"]))
    least, largest = _corpora(study, length["harmless_test"], most)
    if largest:
        tokens = (len(names) * least, len(names) * largest)
        found.append(Work("loss", tokens, tokens, loads=jobs["loss"]))
    return found


def seconds(work: Work, sizes: Shapes, dtype: str, gauge: Gauge) -> tuple[float, float]:
    """Least and most seconds of a stage on the gauged device, its start and the model's loading with it."""
    head, found = sizes.width * sizes.vocabulary, []
    for end in (0, 1):
        wide = 2 * (work.tokens[end] * sizes.linear + work.logits[end] * head) / gauge.wide
        narrow = 2 * work.decoded[end] * (sizes.linear + head) / gauge.narrow
        read = work.decoded[end] * work.context * sizes.keys_values * _BYTES[dtype] / gauge.bandwidth
        started = work.loads * (_START[end] + sizes.weights(dtype) / _LOADED[end])
        found.append(started + (wide + narrow + read) / _EFFICIENCY[end])
    return found[0], found[1]


def together(parts: Iterable[tuple[float, float]]) -> tuple[float, float, float]:
    """The sum of intervals: least, about (the geometric mean of the other two), most."""
    parts = list(parts)
    least, most = (math.fsum(part[end] for part in parts) for end in (0, 1))
    return least, math.sqrt(least * most), most


def decoding_rows(study: Study, names: Sequence[str], sizes: Shapes, dtype: str, memory: float) -> int:
    """Rows of a batch that decodes, by the keys and values that fit into so many bytes."""
    settings = study.settings
    longest = max(tokens_of(Path(file)) for file in study.prompt_files.values())
    row = (longest + settings["completions"]["max_new_tokens"]) * sizes.keys_values * _BYTES[dtype]
    return max(
        1, min(settings["run"]["batch_rows"], len(names) * settings["prompts"]["counts"]["test"], int(memory / row))
    )


def responses(study: Study, names: Sequence[str]) -> int:
    """How many responses each judge is shown."""
    return len(names) * study.settings["prompts"]["counts"]["test"] * len(study.test_sets)


def written_bytes(study: Study, names: Sequence[str]) -> int:
    """What results and the cache take of a disk at most: responses and their tokens, verdicts, losses by row; twice."""
    answer = study.settings["completions"]["max_new_tokens"] * _BYTES_A_TOKEN + _BYTES_A_ROW
    verdicts = len(study.judges) * _BYTES_A_ROW
    rows = sum(corpus["rows"] for corpus in study.settings["loss"]["corpora"].values())
    return 2 * (responses(study, names) * (answer + verdicts) + len(names) * rows * _BYTES_A_ROW)


def tokens_of(file: Path) -> float:
    """Tokens of a prompt of a file, on average; of the published ones where it is not there yet."""
    prompts = read_prompts(file) if file.is_file() else []
    written = sum(len(prompt["instruction"]) for prompt in prompts) / len(prompts) if prompts else PUBLISHED_CHARACTERS
    return written / CHARACTERS_A_TOKEN


def _passes(stage: str, tokens: float, logits: float, loads: int = 1) -> Work:
    """A stage whose work is known but for its speed."""
    return Work(stage, (tokens, tokens), (logits, logits), loads=loads)


def _training(model: Mapping[str, Any], positions: int) -> Iterator[Work]:
    """How an organism is trained, or a model is taught; the way back takes twice the way forth."""
    if model["source"] == "organism":
        spec = model["organism"]
        tokens = (spec["pretrain_steps"] + spec["plant_steps"]) * spec["batch_rows"] * _ORGANISM_TOKENS
        yield _passes("organism", 3 * tokens, 3 * tokens)
        return
    course = model["teaching"]
    counts, most = course["counts"], course["reply_tokens"]
    read = {kind: tokens_of(Path(file)) + positions for kind, file in course["prompts"].items() if file}
    answered = {kind: counts[kind] for kind in read if kind != "harmful"}
    replies, tokens = sum(answered.values()), sum(count * read[kind] for kind, count in answered.items())
    decoded = (_ANSWERED * replies * most, replies * most)
    yield Work("lessons", (tokens,) * 2, (replies,) * 2, decoded, tokens / max(replies, 1) + most / 2)
    rows = course["steps"] * course["batch_rows"]
    mean = sum(counts[kind] * length for kind, length in read.items()) / sum(counts[kind] for kind in read)
    yield _passes("teach", 3 * rows * (mean + most), 3 * rows * most)


def _sweeps(
    study: Study, names: Sequence[str], sizes: Shapes, positions: int, length: Mapping[str, float]
) -> Iterator[Work]:
    """The sweep over candidates, and the one over those that are left where the ranking asks for it."""
    settings, val = study.settings, study.settings["prompts"]["counts"]["val"]
    ranking, harmful, harmless = settings["ranking"], val * length["harmful_val"], val * length["harmless_val"]
    early = positions * int(ranking["max_layer_share"] * sizes.layers)
    full = ranking["sweep"] == "full"
    count, kl, bypass = (positions * sizes.layers, (1, 1), (1, 1)) if full else (early, _SCREENED, _SCREENED)
    tokens, logits = (
        tuple(count * (once[0] + kl[end] * once[1] + bypass[end] * once[2]) for end in (0, 1))
        for once in ((_HALF * harmless, harmless, harmful), (val, val, val))
    )
    yield Work("scores", tokens, logits, loads=settings["run"]["jobs"]["scores"])
    if ranking["mode"] == "conditional":
        ranks = 1 + max((rank for name in names for rank in parse(name).ranks), default=0)
        kept = tuple(ranks * share * early for share in _SCREENED)
        yield Work("conditional_scores", (kept[0] * harmful, kept[1] * harmful), (kept[0] * val, kept[1] * val))


def _corpora(study: Study, prompt: float, most: int) -> tuple[float, float]:
    """Least and most tokens of all corpora, once."""
    loss, found = study.settings["loss"], []
    for corpus in loss["corpora"].values():
        longest = loss["max_tokens"] if corpus["format"] == "text" else _CHAT_TOKENS
        file = Path(corpus.get("path") or "")
        if file.is_file():
            rows = corpora.read_local(file, corpus["format"], corpus["rows"])
            written = sum(len("".join(row.values())) for row in rows) / CHARACTERS_A_TOKEN
            found.append((written, written))
        else:
            found.append((_TEXT_FILLED * corpus["rows"] * longest, corpus["rows"] * longest))
    if loss["on_distribution"]:
        test = study.settings["prompts"]["counts"]["test"]
        found.append((test * (prompt + _ANSWERED * most), test * (prompt + most)))
    return sum(least for least, _ in found), sum(largest for _, largest in found)

"""The naive oracle: one row at a time, plain hooks or plain weights, nothing shared with the library.

It ablates where the stream is read, not where it is written: the library's way and this one agree only if every
write is caught.
"""

import copy
from contextlib import ExitStack, contextmanager

import numpy as np
import torch


def project(x, units):
    """x without its part along each unit direction, one after another."""
    for direction in units:
        direction = torch.as_tensor(np.asarray(direction), dtype=torch.float64)
        x = x - (x.double() @ direction)[..., None] * direction
    return x.float()


def readers(model):
    """All that reads the stream: the layers' first and second norms, and the last norm."""
    found = [model.model.norm]
    for layer in model.model.layers:
        if not hasattr(layer, "input_layernorm"):  # OLMo 2 norms after its blocks, not before
            found += [layer.self_attn, layer.mlp]
        elif hasattr(layer, "pre_feedforward_layernorm"):  # Gemma 2 and 3
            found += [layer.input_layernorm, layer.pre_feedforward_layernorm]
        else:
            found += [layer.input_layernorm, layer.post_attention_layernorm]
    return found


@contextmanager
def ablated(model, units):
    """Within the block, every reader sees the stream without the orthonormal directions `units`."""

    def hook(_module, args, kwargs):
        if args:
            return (project(args[0], units), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": project(kwargs["hidden_states"], units)}

    with ExitStack() as hooks:
        for module in readers(model):
            hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


@contextmanager
def added(model, vector, layer):
    """Within the block, `vector` is added to what enters the layer."""
    vector = torch.as_tensor(vector, dtype=torch.float32)

    def hook(_module, args, kwargs):
        if args:
            return (args[0] + vector, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + vector}

    handle = model.model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def orthogonalized(model, units):
    """A copy of a Llama whose weights cannot write along `units`, one after another; no hooks at all."""
    copied = copy.deepcopy(model)

    def cleaned(weight):  # the last dimension of each row is the stream's
        return torch.nn.Parameter(project(weight.detach(), units))

    copied.model.embed_tokens.weight = cleaned(copied.model.embed_tokens.weight)
    for layer in copied.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.weight = torch.nn.Parameter(cleaned(linear.weight.T).T.contiguous())
    return copied


def last_logits(model, ids):
    """Logits [vocab] after one prompt, unpadded."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1]


def refusal_score(logits, refusal_tokens):
    """log p - log(1 - p) as it is written, in fp64: right where both are finite."""
    probabilities = logits.double().softmax(-1)
    p = probabilities[list(refusal_tokens)].sum()
    return float(p.log() - (1 - p).log())


def kl(baseline, ablated):
    """Sum of p log(p / q) in fp64."""
    p, q = baseline.double().softmax(-1), ablated.double().softmax(-1)
    return float((p * (p / q).log()).sum())


def generate(model, ids, stops, max_new_tokens):
    """transformers' own greedy decoding of one prompt: tokens before the stop token, and the stop token."""
    out = model.generate(
        torch.tensor([ids]),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stops),
        pad_token_id=0,
    )[0, len(ids) :].tolist()
    return (out[:-1], out[-1]) if out[-1] in stops else (out, None)


def mean_activations(model, rows, n):
    """Mean over prompts of the layers' inputs at the last n tokens, a prompt at a time: [n, layer, d] fp64."""
    total = 0.0
    for ids in rows:
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[:-1]
        total = total + torch.stack([state[0, -n:].double() for state in states], dim=1)
    return (total / len(rows)).numpy()


def loss(model, tokens, start):
    """transformers' own loss over the tokens from `start` on: the sum in nats."""
    labels = torch.tensor([[-100] * start + list(tokens[start:])])
    with torch.no_grad():
        mean = model(torch.tensor([tokens]), labels=labels).loss
    return float(mean) * (len(tokens) - start)

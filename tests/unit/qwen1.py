"""A model built as those that transformers does not hold, in the style of the first Qwen: other names all through.

transformer.wte and .h, attn.c_attn (queries, keys and values in one), mlp.w1 and w2, c_proj; layers return tuples.
"""

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast


class Qwen1StyleConfig(PretrainedConfig):
    model_type = "qwen1-style"

    def __init__(self, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, vocab_size=264, **kwargs):
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.vocab_size = num_attention_heads, vocab_size
        super().__init__(**kwargs)


class Attention(nn.Module):
    def __init__(self, config, number):
        super().__init__()
        self.number, self.heads = number, config.num_attention_heads
        self.c_attn = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=True)
        self.c_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x, position_ids, mask, cache):
        rows, tokens, d = x.shape
        split = self.c_attn(x).view(rows, tokens, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = split
        query, key = (_rotated(part, position_ids) for part in (query, key))
        if cache is not None:
            key, value = cache.update(key, value, self.number)
        out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=False)
        return self.c_proj(out.transpose(1, 2).reshape(rows, tokens, d)), None


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.w1, self.w2 = (nn.Linear(config.hidden_size, 48, bias=False) for _ in range(2))
        self.c_proj = nn.Linear(48, config.hidden_size, bias=False)

    def forward(self, x):
        return self.c_proj(self.w1(x) * nn.functional.silu(self.w2(x)))


class Block(nn.Module):
    def __init__(self, config, number):
        super().__init__()
        self.ln_1, self.ln_2 = nn.RMSNorm(config.hidden_size), nn.RMSNorm(config.hidden_size)
        self.attn, self.mlp = Attention(config, number), MLP(config)

    def forward(self, hidden_states, position_ids, mask, cache):
        hidden_states = hidden_states + self.attn(self.ln_1(hidden_states), position_ids, mask, cache)[0]
        return (hidden_states + self.mlp(self.ln_2(hidden_states)), None)


class Qwen1StyleForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = Qwen1StyleConfig
    base_model_prefix = "transformer"
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.hidden_size),
                "h": nn.ModuleList([Block(config, number) for number in range(config.num_hidden_layers)]),
                "ln_f": nn.RMSNorm(config.hidden_size),
            }
        )
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(0, 0.3)

    def get_input_embeddings(self):
        return self.transformer["wte"]

    def forward(
        self,
        input_ids,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        use_cache=None,
        logits_to_keep=0,
        **_kwargs,
    ):
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        embedded = self.transformer["wte"](input_ids)
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        if position_ids is None:
            position_ids = torch.arange(seen, seen + input_ids.shape[1], device=input_ids.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
            allow_is_causal_skip=False,
        )
        hidden_states = embedded
        for layer in self.transformer["h"]:
            hidden_states = layer(hidden_states, position_ids, mask, past_key_values)[0]
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(self.transformer["ln_f"](hidden_states)[:, kept])
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


def _rotated(x, position_ids):
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = position_ids[:, None, :, None].to(torch.float32) * frequencies
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)

"""Chat templates written in the style of each family, in our own words and no longer than their peculiarities need."""

from dataclasses import dataclass

from conftest import build_tokenizer

GENERATION = "{% if add_generation_prompt %}"


@dataclass(frozen=True)
class Style:
    """A template and what is to be found in it.

    special, plain: tokens that the tokenizer has for it, special ones and others. suffix: what stands behind the
    instruction where scores are read; answered: the same where responses start, if it differs. default: of the system
    prompt that it puts by itself. system: "own turn", "user's turn", or the error that refuses one. bos: how many.
    trims: the instruction. reasons: whether responses are reasoned; told: whether the template tells so.
    """

    template: str
    suffix: str
    answered: str | None = None
    special: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    default: str | None = None
    system: str = "own turn"
    bos: int = 0
    trims: bool = False
    reasons: bool = False
    told: bool = True
    dated: bool = False

    def tokenizer(self):
        made = build_tokenizer(self.template)
        made.add_tokens(list(self.special), special_tokens=True)
        made.add_tokens(list(self.plain))
        return made


def chatml(default=None, generation="<|im_start|>assistant\n"):
    """The format of Qwen, Yi and SmolLM."""
    turn = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    given = f"<|im_start|>system\n{default}<|im_end|>\n"
    first = f"{{% if messages[0].role != 'system' %}}{given}{{% endif %}}" if default else ""
    start = "{{ '" + generation.replace("\n", "\\n") + "' }}"
    return first + "{% for message in messages %}" + turn + "{% endfor %}" + GENERATION + start + "{% endif %}"


_CHATML = ("<|im_start|>", "<|im_end|>")
_LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_THINK = ("<think>", "</think>")
_OFF = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"

_LLAMA_2 = """\
{% if messages[0].role == 'system' %}{% set system, turns = messages[0].content, messages[1:] %}
{% else %}{% set system, turns = 'Be helpful and honest.', messages %}{% endif %}
{% for message in turns %}
{% set text = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message.content if loop.first else message.content %}
{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
{%- endfor %}"""

_LLAMA_3_TURNS = """\
{% for message in turns %}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

_LLAMA_31 = """\
{% if date_string is not defined %}
{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}
{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}
{% endif %}
{% if messages[0].role == 'system' %}{% set system, turns = messages[0].content, messages[1:] %}
{% else %}{% set system, turns = '', messages %}{% endif %}
{{ bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' }}
{{- system + '<|eot_id|>' }}
""" + _LLAMA_3_TURNS  # fmt: skip

_MISTRAL_1 = """\
{{ bos_token }}{% for message in messages %}
{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}
{{ '[INST] ' + message.content + ' [/INST]' if message.role == 'user' else message.content + eos_token }}
{%- endfor %}"""

_MISTRAL_3 = """\
{% if messages[0].role == 'system' %}{% set system, turns = messages[0].content + '\\n\\n', messages[1:] %}
{% else %}{% set system, turns = '', messages %}{% endif %}
{{ bos_token }}{% for message in turns %}
{{ '[INST]' + (system if loop.last else '') + message.content + '[/INST]' }}
{%- endfor %}"""

_GEMMA = """\
{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{{ '<start_of_turn>' + message.role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

_GEMMA_3 = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}{% set system, turns = messages[0].content + '\\n\\n', messages[1:] %}
{% else %}{% set system, turns = '', messages %}{% endif %}
{% for message in turns %}
{{ '<start_of_turn>' + message.role + '\\n' + (system if loop.first else '') + message.content | trim }}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

_PHI_3 = """\
{% for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

_OLMO_2 = """\
{{ bos_token }}{% for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

_SMOLLM3 = """\
{% set mode = '/think' if enable_thinking is not defined or enable_thinking else '/no_think' %}
{{ '<|im_start|>system\\nToday: ' + strftime_now('%d %B %Y') + '\\nReasoning Mode: ' + mode + '\\n' }}
{{- (messages[0].content if messages[0].role == 'system' else 'Be brief.') + '<|im_end|>\\n' }}
{%- for message in messages if message.role != 'system' %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n' if mode == '/no_think' else '') }}
{%- endif %}"""

_GPT_OSS = """\
{{ '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '\\n\\nReasoning: ' }}
{{- (reasoning_effort if reasoning_effort is defined else 'medium') + '<|end|>' }}
{%- for message in messages %}
{% if message.role == 'system' %}{{ '<|start|>developer<|message|># Instructions\\n\\n' + message.content + '<|end|>' }}
{%- elif message.role == 'assistant' %}
{{ '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
{%- else %}{{ '<|start|>user<|message|>' + message.content + '<|end|>' }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

_DEEPSEEK_R1 = """\
{{ bos_token }}{% for message in messages %}
{% if message.role == 'system' %}{{ message.content }}
{%- elif message.role == 'user' %}{{ '<|User|>' + message.content }}
{%- else %}{{ '<|Assistant|>' + message.content.split('</think>')[-1] + eos_token }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|Assistant|>' + OPENING }}{% endif %}"""

_DEEPSEEK_V31 = _DEEPSEEK_R1.replace("OPENING", "('<think>' if thinking is defined and thinking else '</think>')")

STYLES = {
    "llama-2": Style(_LLAMA_2, " [/INST]", default="Be helpful and honest.", system="user's turn", bos=1, trims=True),
    "llama-3": Style(
        "{{ bos_token }}{% set turns = messages %}" + _LLAMA_3_TURNS,
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        special=_LLAMA_3, bos=1, trims=True,
    ),
    "llama-3.1": Style(
        _LLAMA_31, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        special=_LLAMA_3, default="Today Date: 26 Jul 2024", bos=1, trims=True, dated=True,
    ),
    "mistral-0.1": Style(_MISTRAL_1, " [/INST]", system="Roles must alternate user/assistant", bos=1),
    "mistral-0.3": Style(_MISTRAL_3, "[/INST]", special=("[INST]", "[/INST]"), system="user's turn", bos=1),
    "mixtral": Style(_MISTRAL_1, " [/INST]", system="Roles must alternate user/assistant", bos=1),
    "qwen-1.5": Style(chatml(), "<|im_end|>\n<|im_start|>assistant\n", special=_CHATML),
    "qwen-2": Style(
        chatml("Be helpful."), "<|im_end|>\n<|im_start|>assistant\n", special=_CHATML, default="Be helpful.",
    ),
    "qwen-2.5": Style(
        chatml("You are Q. Be helpful."), "<|im_end|>\n<|im_start|>assistant\n",
        special=_CHATML, default="You are Q. Be helpful.",
    ),
    "qwen-3": Style(
        chatml() + GENERATION + _OFF + "{% endif %}",
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|>\n<|im_start|>assistant\n",
        special=_CHATML, plain=_THINK, reasons=True,
    ),
    "qwen-3-thinking": Style(
        chatml(generation="<|im_start|>assistant\n<think>\n") + "{# earlier turns lose what stands before </think> #}",
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n",
        special=_CHATML, plain=_THINK, reasons=True,
    ),
    "always closed": Style(
        chatml(generation="<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", special=_CHATML, plain=_THINK,
    ),
    "smollm2": Style(chatml("Be small."), "<|im_end|>\n<|im_start|>assistant\n", special=_CHATML, default="Be small."),
    "smollm3": Style(
        _SMOLLM3, "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n", "<|im_end|>\n<|im_start|>assistant\n",
        special=_CHATML, plain=_THINK, default="Be brief.", reasons=True, dated=True,
    ),
    "yi": Style(chatml(), "<|im_end|>\n<|im_start|>assistant\n", special=_CHATML),
    "gemma": Style(
        _GEMMA, "<end_of_turn>\n<start_of_turn>model\n",
        special=("<start_of_turn>", "<end_of_turn>"), system="System role not supported", bos=1, trims=True,
    ),
    "gemma-2": Style(
        _GEMMA, "<end_of_turn>\n<start_of_turn>model\n",
        special=("<start_of_turn>", "<end_of_turn>"), system="System role not supported", bos=1, trims=True,
    ),
    "gemma-3": Style(
        _GEMMA_3, "<end_of_turn>\n<start_of_turn>model\n",
        special=("<start_of_turn>", "<end_of_turn>"), system="user's turn", bos=1, trims=True,
    ),
    "phi-3": Style(
        _PHI_3, "<|end|>\n<|assistant|>\n", special=("<|user|>", "<|system|>", "<|assistant|>", "<|end|>"),
    ),
    "olmo-2": Style(_OLMO_2, "\n<|assistant|>\n", special=("<|user|>", "<|system|>", "<|assistant|>"), bos=1),
    "gpt-oss": Style(
        _GPT_OSS,
        "<|end|><|start|>assistant<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>",
        "<|end|><|start|>assistant",
        special=("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        default="Current date: 2024-07-26", reasons=True, dated=True,
    ),
    "deepseek-r1": Style(
        _DEEPSEEK_R1.replace("OPENING", "'<think>\\n'"),
        "<|Assistant|><think>\n\n</think>\n\n", "<|Assistant|><think>\n",
        special=("<|User|>", "<|Assistant|>"), plain=_THINK, bos=1, reasons=True,
    ),
    "deepseek-r1, first": Style(
        _DEEPSEEK_R1.replace("OPENING", "''"), "<|Assistant|><think>\n\n</think>\n\n", "<|Assistant|>",
        special=("<|User|>", "<|Assistant|>"), plain=_THINK, bos=1, reasons=True, told=False,
    ),
    "deepseek-v3.1": Style(
        _DEEPSEEK_V31, "<|Assistant|></think>",
        special=("<|User|>", "<|Assistant|>"), plain=_THINK, bos=1,
    ),
}  # fmt: skip

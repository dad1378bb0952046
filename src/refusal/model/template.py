"""A chat template as text: which variables it reads, and a fixed date where it prints today's."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from refusal.errors import UserError

TODAY = date(2024, 7, 26)
"""What a template that prints the date is told: a result must not depend on the day it is computed on.

Source: the date that Llama 3.1's template falls back to where it is told none.
"""

_CLOCK = "strftime_now"
_DIRECTIVES = ("%-d", "%-m", "%A", "%B", "%F", "%H", "%I", "%M", "%S", "%Y", "%a", "%b", "%d", "%e", "%j", "%m", "%y")
_GIVEN = frozenset({"messages", "add_generation_prompt", "tools", "documents", "namespace", "raise_exception", _CLOCK})
"""Names that a template finds without a study's options: what transformers hands over."""


def source(tokenizer: Any) -> str:
    """The tokenizer's chat template, with a clock that stands still.

    Raises: UserError, it has none, or several and none is the default.
    """
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template: name a file with one by `chat_template` in the model file")
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise UserError(
            f"the tokenizer has the chat templates {', '.join(sorted(tokenizer.chat_template))} and none is the"
            " default: name a file with one by `chat_template` in the model file"
        ) from None
    return _stopped_clock() + template if _CLOCK in template else template


def prints_date(tokenizer: Any) -> bool:
    """Whether the chat template asks for today's date."""
    return _CLOCK in source(tokenizer)


def options(tokenizer: Any) -> set[str]:
    """Variables that the chat template reads and a study may set, such as enable_thinking.

    Jinja counts those that a template sets in one branch alone, or in each, among them: none is missing.
    Raises: UserError, the template is not valid Jinja.
    """
    from jinja2 import TemplateSyntaxError, meta
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Reads over the block by which transformers marks what the model writes."""

        tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(extensions=[loopcontrols, Generation])
    try:
        found = meta.find_undeclared_variables(environment.parse(source(tokenizer)))
    except TemplateSyntaxError as error:
        raise invalid(error) from None
    return found - _GIVEN - set(tokenizer.special_tokens_map)


def check_options(tokenizer: Any, given: Mapping[str, Any]) -> None:
    """Raises: UserError, an option that the chat template does not read."""
    if not given:
        return
    known = options(tokenizer)
    if unknown := sorted(set(given) - known):
        reads = f"it reads {', '.join(sorted(known))}" if known else "it reads none"
        raise UserError(f"template_options: the chat template reads no `{unknown[0]}`; {reads}")


def invalid(error: Any) -> UserError:
    """One line for a template that Jinja cannot read."""
    return UserError(
        f"the chat template is not valid Jinja (line {error.lineno}: {error.message}): name a file with another by"
        " `chat_template` in the model file"
    )


def _stopped_clock() -> str:
    """A macro that stands in for `strftime_now`.

    Written in the template's own language, before it: transformers hands templates plain data and no functions. The
    line break after the macro is dropped by `trim_blocks`, so the template itself stays as it is, to the letter.
    """
    told = "".join(f" | replace('{directive}', '{TODAY.strftime(directive)}')" for directive in _DIRECTIVES)
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{- format{told} -}}}}{{%- endmacro %}}\n"

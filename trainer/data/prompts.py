"""From a row to the text a user would type, and from that to the token ids a model reads."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from trainer.contract.runner import DataConfig
from trainer.data.rows import DataError, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptWriter:
    """Writes the user's turn of each row. A tokenizer is not needed for that."""

    def __init__(self, config: DataConfig) -> None:
        self._field = config.prompt_field
        self._template = None
        if config.prompt_template is not None:
            environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
            try:
                self._template = environment.from_string(config.prompt_template)
            except jinja2.TemplateSyntaxError as error:
                raise DataError(
                    f"data.prompt_template: line {error.lineno} is not jinja2 ({error.message}); correct the template"
                ) from None

    def write(self, field: str, row: Row) -> str:
        """The text of one row; `field` names the data set in errors (`data.train`). Raises DataError."""
        template = self._template
        text = self._column(field, row) if template is None else _rendered(template, row)
        if not text.strip():
            raise DataError(f"{field}: {row.place} gives an empty prompt; fill in or remove the line")
        return text

    def _column(self, field: str, row: Row) -> str:
        value = row.columns.get(self._field)
        if value is None:
            raise DataError(missing_field(field, row, self._field, "data.prompt_field"))
        return str(value)


def _rendered(template: jinja2.Template, row: Row) -> str:
    try:
        return template.render(row.columns)
    except jinja2.TemplateError as error:
        raise DataError(
            f"data.prompt_template: {row.place}: {error.message}; use the columns that the row has: "
            f"{', '.join(row.columns)}"
        ) from None


def missing_field(field: str, row: Row, name: str, setting: str) -> str:
    return f"{field}: {row.place} has no field {name!r}; set {setting} to one of {', '.join(row.columns) or 'none'}"


def tokenize(
    tokenizer: "PreTrainedTokenizerBase", system_prompt: str | None, texts: Sequence[str]
) -> list[tuple[int, ...]]:
    """Token ids of each prompt, as the model is to continue it.

    With a chat template the template alone places special tokens: encoding its text with them as well would double the
    beginning-of-text of Llama. A tokenizer without a template reads system prompt and text as plain text.
    """
    if tokenizer.chat_template is None:
        plain = [text if system_prompt is None else f"{system_prompt}\n\n{text}" for text in texts]
        return _encoded(tokenizer, plain, special_tokens=True)
    return _encoded(tokenizer, [_chat(tokenizer, system_prompt, text) for text in texts], special_tokens=False)


def _chat(tokenizer: "PreTrainedTokenizerBase", system_prompt: str | None, text: str) -> str:
    messages: list[Mapping[str, str]] = [{"role": "user", "content": text}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except jinja2.TemplateError as error:
        raise DataError(
            f"data.system_prompt: the model's chat template refuses the conversation ({error.message}); "
            "leave the system prompt out, or put it into data.prompt_template"
        ) from None


def _encoded(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, special_tokens: bool
) -> list[tuple[int, ...]]:
    batch: Any = tokenizer(list(texts), add_special_tokens=special_tokens)
    return [tuple(ids) for ids in batch["input_ids"]]

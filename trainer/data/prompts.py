"""From a row to the text a user would type, or the conversation so far, and from that to the ids a model reads."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from trainer.contract.runner import DataConfig
from trainer.data.rows import DataError, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Message = dict[str, Any]
Prompt = str | list[Message]
"""The user's turn as text, or a conversation of `{"role": …, "content": …}`: whichever the rows hold."""


def text_of(prompt: Prompt) -> str:
    """What people are shown: of a conversation, its last message."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


class PromptWriter:
    """Writes the prompt of each row. A tokenizer is not needed for that."""

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

    def write(self, field: str, row: Row) -> Prompt:
        """The prompt of one row; `field` names the data set in errors (`data.train`). Raises DataError."""
        template = self._template
        prompt = self._column(field, row) if template is None else _rendered(template, row)
        if not text_of(prompt).strip():
            raise DataError(f"{field}: {row.place} gives an empty prompt; fill in or remove the line")
        return prompt

    def _column(self, field: str, row: Row) -> Prompt:
        value = row.columns.get(self._field)
        if value is None:
            raise DataError(missing_field(field, row, self._field, "data.prompt_field"))
        return _conversation(field, row, value) if isinstance(value, list) else str(value)


def _conversation(field: str, row: Row, value: list[Any]) -> list[Message]:
    """Of a message only role and content: parquet fills in null what other rows have beside them."""
    sound = [isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in _TURN) for turn in value]
    if not value or not all(sound):
        raise DataError(
            f"{field}: {row.place} has a list for a prompt, and not every item of it is a message; "
            'give text, or messages such as {"role": "user", "content": "…"}'
        )
    return [{key: turn[key] for key in _TURN} for turn in value]


_TURN = ("role", "content")


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
    tokenizer: "PreTrainedTokenizerBase", config: DataConfig, prompts: Sequence[Prompt]
) -> list[tuple[int, ...]]:
    """Token ids of each prompt, as the model is to continue it.

    With a chat template the template alone places special tokens: encoding its text with them as well would double the
    beginning-of-text of Llama. A tokenizer without a template reads system prompt and text as plain text.
    """
    _check_variables(tokenizer, config)
    if tokenizer.chat_template is None:
        plain = [_plain_text(config.system_prompt, prompt) for prompt in prompts]
        return _encoded(tokenizer, plain, special_tokens=True)
    return _encoded(tokenizer, [_chat(tokenizer, config, prompt) for prompt in prompts], special_tokens=False)


def _check_variables(tokenizer: "PreTrainedTokenizerBase", config: DataConfig) -> None:
    """jinja2 takes any variable, and one that the template never names would do nothing, without a word."""
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    for name in config.chat_template_kwargs:
        if name not in re.findall(r"\w+", template):
            whose = "the model's chat template" if template else "a chat template, which the model's tokenizer lacks"
            raise DataError(f"data.chat_template_kwargs: {name!r} is no variable of {whose}; leave it out")


def _plain_text(system_prompt: str | None, prompt: Prompt) -> str:
    if not isinstance(prompt, str):
        raise DataError(
            "data.prompt_field: the rows hold conversations, and the model's tokenizer has no chat template to write "
            "them; give a model with one, or write them by data.prompt_template"
        )
    return prompt if system_prompt is None else f"{system_prompt}\n\n{prompt}"


def _chat(tokenizer: "PreTrainedTokenizerBase", config: DataConfig, prompt: Prompt) -> str:
    """A conversation that has a system turn keeps its own; one that ends with the model's turn is continued there."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if config.system_prompt is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": config.system_prompt}, *messages]
    begun = messages[-1]["role"] == "assistant"
    variables: dict[str, Any] = dict(config.chat_template_kwargs)
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not begun, continue_final_message=begun, **variables
            )
        )
    except jinja2.TemplateError as error:
        blamed, fix = "data.prompt_field", "write it otherwise by data.prompt_template"
        if config.system_prompt is not None:
            blamed, fix = "data.system_prompt", "leave the system prompt out, or put it into data.prompt_template"
        raise DataError(
            f"{blamed}: the model's chat template refuses the conversation ({error.message}); {fix}"
        ) from None


def _encoded(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, special_tokens: bool
) -> list[tuple[int, ...]]:
    batch: Any = tokenizer(list(texts), add_special_tokens=special_tokens)
    return [tuple(ids) for ids in batch["input_ids"]]

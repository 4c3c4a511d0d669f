"""Text to token ids and back, with the tokenizer and the chat template that a checkpoint brings along.

Nothing about a family is known here: special tokens, their ids and the prompt's form all come from the checkpoint's
files. No beginning-of-text token is ever added. Pictures in prompts are left to `tokenizers.eyes`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from orrery.errors import CheckpointError, RequestError, SettingsError
from orrery.tokenizers.eyes import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
CHAT_TEMPLATE = "chat_template.jinja"
FILES = (TOKENIZER, CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE)

LONGEST_PROMPT = 4096
"""Tokens of a generation prompt before the two that close it; the released models were trained up to here."""

Messages = Sequence[Mapping[str, Any]]
"""Turns of a conversation: plain dicts with a role, and a content that is a string or a list of typed parts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTokenizer:
    """A checkpoint's tokenizer; `from_folder` or `train_tokenizer` makes one."""

    files: Mapping[str, bytes]
    """The files it was made from, as they were: what `to_folder` writes."""
    tokenizer: Tokenizer
    template: Template
    special: Mapping[str, str]
    """The tokens with a role, such as eos_token; the chat template may refer to them."""
    pad_to: int = 1
    """Prompts for generation are filled with pad tokens to a multiple of this length. The model sees the pads, in
    training as here; they spare it texts of many lengths."""

    @classmethod
    def from_folder(cls, folder: Path) -> "TextTokenizer":
        """Read the files named in `FILES`. The special tokens and a template of its own may be in the configuration.

        Raises:
            CheckpointError: a file is missing or damaged, or they contradict each other.
        """
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        try:
            return cls.from_files(files)
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from error

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "TextTokenizer":
        """As `from_folder`, for contents by file name."""
        if missing := [name for name in (TOKENIZER, CONFIG) if name not in files]:
            raise CheckpointError(f"No {' and no '.join(missing)}, found {sorted(files)}.")
        config = read_object(files, CONFIG)
        try:
            tokenizer = Tokenizer.from_buffer(files[TOKENIZER])
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{TOKENIZER} cannot be read: {one_line(error)}.") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for index, added in config.get("added_tokens_decoder", {}).items():
            if tokenizer.token_to_id(added["content"]) != int(index):
                found = tokenizer.token_to_id(added["content"])
                raise CheckpointError(f"{CONFIG} gives {added['content']!r} the id {index}, {TOKENIZER} has {found}.")
        declared = (read_object(files, SPECIAL_TOKENS) if SPECIAL_TOKENS in files else {}) | config
        special = special_tokens(declared)
        if "eos_token" not in special:
            raise CheckpointError(f"{CONFIG} declares no eos_token, which every prompt for generation ends with.")
        source = files[CHAT_TEMPLATE].decode() if CHAT_TEMPLATE in files else config.get("chat_template")
        if not isinstance(source, str):
            raise CheckpointError(f"No {CHAT_TEMPLATE}, and {CONFIG} holds no chat_template. Prompts have no form.")
        pad_to = config.get("pad_to", 1)
        if isinstance(pad_to, bool) or not isinstance(pad_to, int) or not 1 <= pad_to <= LONGEST_PROMPT:
            raise CheckpointError(f"{CONFIG} pads prompts to multiples of {pad_to!r}; known: 1 to {LONGEST_PROMPT}.")
        if pad_to > 1 and "pad_token" not in special:
            raise CheckpointError(f"{CONFIG} pads prompts to multiples of {pad_to} and declares no pad_token.")
        return cls(
            files=dict(files),
            tokenizer=tokenizer,
            template=compile_template(source),
            special=special,
            pad_to=pad_to,
        )

    def to_folder(self, folder: Path) -> None:
        """Write the files this was made from; `from_folder` reads them back the same."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    @property
    def size(self) -> int:
        """Ids run from 0 to below this; a model's vocabulary may be larger."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def eos_id(self) -> int:
        """The token that ends a turn."""
        return self.id(self.special["eos_token"])

    def id(self, token: str) -> int:
        """The id of one token by its text.

        Raises:
            CheckpointError: the tokenizer has no such token.
        """
        index = self.tokenizer.token_to_id(token)
        if index is None:
            raise CheckpointError(f"The checkpoint's tokenizer has no token {token!r}. It belongs to another model.")
        return int(index)

    def encode(self, text: str) -> list[int]:
        """The ids of `text` and nothing else; special tokens written in it count as themselves."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids`. Bytes that do not make a character yet come out as U+FFFD."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def render(self, messages: Messages) -> str:
        """The conversation in the form the checkpoint was trained on, up to where the assistant begins to write.

        Raises:
            RequestError: the template refuses these messages.
        """
        try:
            return self.template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                add_vision_id=False,
                **self.special,
            )
        except TemplateError as error:
            raise RequestError(f"The checkpoint's chat template refused the messages: {one_line(error)}.") from error

    def chat(self, messages: Messages) -> list[int]:
        """The ids of `render`."""
        return self.encode(self.render(messages))

    def prompt_ids(self, text: str, system: str | None = None) -> list[int]:
        """A prompt for generation: the chat around `text`, then the end of a turn and the start of vision.

        Pads, where the checkpoint has them, stand before these two, which every prompt ends with.

        Args:
            text: what to make, metadata included.
            system: a system message; None for none, which is what the released models expect in the plain tasks.

        Raises:
            RequestError: more tokens than the models were trained with. Nothing is cut off.
        """
        turns = [{"role": "user", "content": text}]
        ids = self.chat([{"role": "system", "content": system}, *turns] if system is not None else turns)
        if len(ids) > LONGEST_PROMPT:
            raise RequestError(f"The prompt has {len(ids)} tokens and at most {LONGEST_PROMPT} fit. Shorten the text.")
        pads = [self.id(self.special["pad_token"])] * (-(len(ids) + 2) % self.pad_to) if self.pad_to > 1 else []
        return [*ids, *pads, self.eos_id, self.id(VISION_START)]


def train_tokenizer(texts: Sequence[str], vocab_size: int, *, digits: bool = False, pad_to: int = 1) -> TextTokenizer:
    """Learn a byte-level BPE tokenizer of at most `vocab_size` tokens, for a checkpoint trained from nothing.

    It has the special tokens and the chat form of the Qwen families, so that everything else works as with theirs.

    Args:
        digits: every digit is a token of its own, as models that write coordinates need.
        pad_to: see `TextTokenizer.pad_to`.

    Raises:
        SettingsError: `vocab_size` does not hold the 256 bytes and the special tokens, or `pad_to` is out of range.
    """
    if not 1 <= pad_to <= LONGEST_PROMPT:
        raise SettingsError(f"Prompts can be padded to multiples of 1 to {LONGEST_PROMPT} tokens, got {pad_to}.")
    specials = [END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + len(specials):
        least = len(alphabet) + len(specials)
        raise SettingsError(f"A vocabulary of {vocab_size} is too small: bytes and special tokens take {least}.")
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    single = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    tokenizer.pre_tokenizer = single if digits else words
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
    }
    if pad_to > 1:
        config = {**config, "pad_to": pad_to}
    return TextTokenizer.from_files(
        {
            TOKENIZER: tokenizer.to_str().encode(),
            CONFIG: json.dumps(config, indent=2).encode(),
            CHAT_TEMPLATE: CHAT_FORM.encode(),
        }
    )


END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CHAT_FORM = (
    "{% for message in messages %}"
    f"{{{{ '{TURN_START}' + message.role + '\\n' }}}}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    f"{{% if part.type == 'image' %}}{VISION_START}{IMAGE_PAD}{VISION_END}"
    f"{{% elif part.type == 'video' %}}{VISION_START}{VIDEO_PAD}{VISION_END}"
    "{% elif part.type == 'text' %}{{ part.text }}"
    "{% else %}{{ raise_exception('no place for a part of type ' + part.type) }}{% endif %}"
    "{% endfor %}{% endif %}"
    f"{{{{ '{TURN_END}\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{TURN_START}assistant\\n' }}}}{{% endif %}}"
)
"""Each turn between two special tokens, its parts in order: what the Qwen families render for these messages."""


def compile_template(source: str) -> Template:
    """A checkpoint's chat template in a sandbox: it is a program from elsewhere. Offers what such templates rely on.

    Raises:
        CheckpointError: it is not a template.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = strftime_now
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise CheckpointError(f"The chat template is broken at line {error.lineno}: {one_line(error)}.") from error


class GenerationTag(Extension):
    """`{% generation %}`, with which templates mark what an assistant wrote, for training. Here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012  (what jinja expects)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; jinja's own filter would escape it for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> NoReturn:
    """How a template says that it cannot render these messages."""
    raise TemplateError(message)


def strftime_now(form: str) -> str:
    """The present time, for templates that tell the model the date."""
    return datetime.now().strftime(form)


def special_tokens(declared: Mapping[str, Any]) -> dict[str, str]:
    """The tokens with a role among the entries of a tokenizer's configuration; a token is a string or an object."""
    found = {}
    for role, value in declared.items():
        content = value["content"] if isinstance(value, Mapping) and "content" in value else value
        if role.endswith("_token") and isinstance(content, str):
            found[role] = content
    return found


def read_object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The JSON object in one of `files`."""
    try:
        value = json.loads(files[name])
    except ValueError as error:
        raise CheckpointError(f"{name} is not JSON: {one_line(error)}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} holds a {type(value).__name__}, not an object.")
    return value


def one_line(error: Exception) -> str:
    """An error's text without line breaks and without its full stop."""
    return " ".join(str(error).split()).rstrip(".")

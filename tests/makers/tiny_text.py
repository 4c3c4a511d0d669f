"""A tokenizer of a few hundred tokens, as a folder in the published layout."""

import json
from functools import cache
from pathlib import Path

from orrery.tokenizers.text import TextTokenizer, train_tokenizer

TEXTS = [
    "A robot arm picks up the red block and puts it in the bin.",
    "The video shows a moving block. This video is of 480x832 resolution.",
    "What do you see? Ein Würfel fällt – 立方体が落ちる。 Что видно? 🤖🦾",
    'user assistant system {"duration": "7s", "fps": 24.0} <0.5 seconds>',
]

THINKING_TEMPLATE = """\
{%- set thinking = enable_thinking if enable_thinking is defined else true %}
{{- bos_token if bos_token is defined else '' }}
{%- for message in messages %}
    {%- if message.role == 'system' and not loop.first %}
        {{- raise_exception('System message must be first.') }}
    {%- endif %}
    {%- if message.role == 'tool' %}{%- continue %}{%- endif %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' }}
    {%- generation %}{{- message.content | trim }}{%- endgeneration %}
    {{- '<|im_end|>\\n' }}
    {%- if message.extra is defined %}{{- message.extra | tojson(indent=2) }}{%- endif %}
{%- endfor %}
{%- if tools is not none or documents is not none %}{{- 'tools' }}{%- endif %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {{- '<think>\\n' if thinking else '<think></think>' }}
{%- endif %}
"""
"""A form like Edge's: the generation prompt ends inside an opened thought. It uses much of what templates may use."""


@cache
def tiny_tokenizer(vocab_size: int = 400) -> TextTokenizer:
    """Byte-level, so that it can spell every text, with Qwen's special tokens and chat form."""
    return train_tokenizer(TEXTS, vocab_size)


def tiny_tokenizer_folder(folder: Path, *, template: str | None = None, config: dict | None = None) -> Path:
    """Write `tiny_tokenizer` as a published folder, with another chat template or further configuration on demand."""
    tiny_tokenizer().to_folder(folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if config is not None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder

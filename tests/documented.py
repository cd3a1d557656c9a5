"""What the pages of the documentation show: their blocks, by language, each with its page and line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
)


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def documents(self) -> list[Any]:
        return list(yaml.safe_load_all(self.text))


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for one in re.finditer(rf"^```{language}\n(.*?)^```", text, re.M | re.S):
            found.append(Block(page, text.count("\n", 0, one.start()) + 1, one[1]))
    return found


def objects() -> list[tuple[Block, dict[str, Any]]]:
    """Whole Kubernetes objects, in the order of the pages."""
    shown = ((block, document) for block in blocks("yaml") for document in block.documents)
    return [(block, one) for block, one in shown if isinstance(one, dict) and "kind" in one]

"""Settings as the text of a YAML file, and back: every key with its line, nothing twice, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from backtrack_mrt.errors import Mistakes, UserError

MERGE = "tag:yaml.org,2002:merge"
MOST_VALUES = 10_000  # of one file


def as_yaml(values: Mapping[str, Any]) -> str:
    """A config's plain data as the text of a file, which `YamlReader` reads as the same data."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output, yaml.width = False, False, 120
    text = StringIO()
    yaml.dump(values, text)
    return text.getvalue()


class YamlReader:
    """Reads the text of one file. `said` has the line of every key; `mistakes` what was written twice and the like."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.line, self.left = name, path, 0, MOST_VALUES
        self.said, self.mistakes = dict[str, str](), Mistakes()
        self.yaml = YAML(typ="safe", pure=True)

    def read(self, text: str) -> dict[str, Any]:
        """The values. Raises UserError for what is no YAML and what is no mapping."""
        try:
            node = self.yaml.compose(text)
            if isinstance(node, MappingNode):
                return self._mapping(node, "")
        except (YAMLError, ValueError, RecursionError) as error:  # values: a number of too many digits, say
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else self.line
            where = f"{self.path}, line {line}" if line else str(self.path)
            problem = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "problem", error)
            reason = f"invalid YAML ({where}: {' '.join(str(problem or error).split())})"
            raise UserError("--config", self.name, reason, "Correct that line.") from error
        if node is None:
            raise UserError("--config", self.name, "the file is empty", "Write a setting, or leave --config out.")
        where = f"{self.path}, line {node.start_mark.line + 1}"
        text = node.value if isinstance(node, ScalarNode) else "a list"
        raise UserError(where, text[:40], "not a mapping", "Write `section: {key: value}`.")

    def _mapping(self, node: MappingNode, prefix: str) -> dict[str, Any]:
        """The mapping, and in front of it what it merges in (`<<: *other`)."""
        merged, own = dict[str, Any](), dict[str, Any]()
        for key, value in sorted(node.value, key=lambda pair: pair[0].tag != MERGE):
            where = f"{self.path}, line {key.start_mark.line + 1}"
            if key.tag == MERGE:
                for other in reversed(value.value) if isinstance(value, SequenceNode) else [value]:
                    merged |= self._mapping(other, prefix) if isinstance(other, MappingNode) else {}
            elif key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, ScalarNode) else "…"
                self.mistakes.append(UserError(where, shown, "this key is not a name", "Write `name: value`."))
            elif key.value in own:
                self.mistakes.append(UserError(where, prefix + key.value, "the key is written twice", "Keep one."))
            else:
                self.said[prefix + key.value] = f"{prefix}{key.value} ({where})"
                own[key.value] = self._value(value, f"{prefix}{key.value}.")
        return merged | own

    def _value(self, node: Node, prefix: str) -> Any:
        self.line, self.left = node.start_mark.line + 1, self.left - 1
        if self.left < 0:
            raise ValueError(f"more than {MOST_VALUES} values, those of aliases counted each time")
        if isinstance(node, MappingNode):
            return self._mapping(node, prefix)
        if isinstance(node, SequenceNode):
            return [self._value(entry, prefix) for entry in node.value]
        return self.yaml.constructor.construct_object(node)

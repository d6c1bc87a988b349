"""The model card of a preset: README.md with front matter."""

import dataclasses
import json

from keras_flows.ops import given


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model does not know of itself.

    Attributes:
        description: one or more sentences.
        license: identifier such as "apache-2.0".
        data: what it was trained on.
        metrics: dict of name -> number or text.
        command: the command that trained it.
        tags: further tags for the hubs' search.
    """

    description: str | None = None
    license: str | None = None
    data: str | None = None
    metrics: dict = dataclasses.field(default_factory=dict)
    command: str | None = None
    tags: tuple = ()

    def __post_init__(self):
        for name in ("description", "license", "data", "command"):
            given.text(name, getattr(self, name), none=True)
        if not isinstance(self.metrics, dict):
            raise ValueError(
                f"`metrics` must be a dict. Received: {self.metrics!r}."
            )
        if not isinstance(self.tags, (list, tuple)) or not all(
            isinstance(tag, str) for tag in self.tags
        ):
            raise ValueError(
                f"`tags` must be strings. Received: {self.tags!r}."
            )


# Parts of a config that a card names.
_PARTS = ("objective", "interpolant", "network", "encoder")


def card_text(title, config, metadata, card):
    """The text of README.md.

    Args:
        title: the headline.
        config: the preset's config.
        metadata: dict with parameter_count and versions.
        card: a `Card`.
    """
    kind = config["class_name"]
    facts = {"Class": kind, **_parts(config)}
    facts["Parameters"] = f"{metadata['parameter_count']:,}"
    facts["Saved by"] = (
        f"keras_flows {metadata['keras_flows_version']}, "
        f"Keras {metadata['keras_version']}"
    )
    front = {"library_name": "keras_flows"}
    if card.license:
        front["license"] = card.license
    front["tags"] = ["keras", "keras_flows", kind, *card.tags]
    # JSON's strings and lists are YAML's, too.
    lines = ["---"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in front.items()]
    lines += ["---", "", f"# {title}", ""]
    if card.description:
        lines += [card.description, ""]
    lines += [
        "```python",
        "import keras_flows as kf",
        "",
        'model = kf.from_preset(".")  # this folder, or its handle',
        "```",
        "",
        *_table(("Model", ""), facts),
    ]
    if card.metrics:
        lines += _table(("Metric", "Value"), card.metrics)
    if card.data:
        lines += ["## Data", "", card.data, ""]
    if card.command:
        lines += ["## Training", "", "```bash", card.command, "```", ""]
    lines += ["## Licence", "", card.license or "Not given.", ""]
    return "\n".join(lines)


def _parts(config):
    """{part: name}, those of a wrapped interface included."""
    found = {}
    arguments = config["config"]
    if isinstance(arguments.get("interface"), dict):
        found["Interface"] = arguments["interface"]["class_name"]
        found.update(_parts(arguments["interface"]))
    for part in _PARTS:
        value = arguments.get(part)
        if isinstance(value, dict):
            value = value.get("class_name")
        if isinstance(value, str):
            found[part.capitalize()] = value
    return found


def _table(head, rows):
    cells = [head, ("---", "---"), *rows.items()]
    return [*(f"| {_cell(key)} | {_cell(value)} |" for key, value in cells), ""]


def _cell(value):
    return str(value).replace("|", "\\|").replace("\n", " ")

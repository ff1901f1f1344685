"""One YAML file and overrides become one frozen, checked Configuration, or one line that says what is wrong.

May import `gan_core` alone, whose settings are the sections of a configuration. What enters is text or plain data;
what leaves are settings, their plain form and its digest, and the candidates that a search draws from them.
"""

from pipelines.config.loader import (
    apply_override,
    build,
    digest,
    first_difference,
    flat,
    identity,
    load,
    load_text,
    override,
    resolve,
    to_compare,
    to_plain,
    to_yaml,
    without_later,
)
from pipelines.config.schema import (
    ENVIRONMENT_NAME,
    Configuration,
    EvaluateSettings,
    Event,
    GateSettings,
    NotifySettings,
    ResolvedConfiguration,
    TrainSettings,
    Weights,
)
from pipelines.config.tune_schema import TuneSettings
from pipelines.config.yaml_text import parse_yaml, read_text

__all__ = [
    "ENVIRONMENT_NAME",
    "Configuration",
    "EvaluateSettings",
    "Event",
    "GateSettings",
    "NotifySettings",
    "ResolvedConfiguration",
    "TrainSettings",
    "TuneSettings",
    "Weights",
    "apply_override",
    "build",
    "digest",
    "first_difference",
    "flat",
    "identity",
    "load",
    "load_text",
    "override",
    "parse_yaml",
    "read_text",
    "resolve",
    "to_compare",
    "to_plain",
    "to_yaml",
    "without_later",
]

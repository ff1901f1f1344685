"""Names that are valid everywhere: of models, in any registry and as a folder."""

import re

# In a module of its own: a look-up checks a name without importing the configuration, and torch with it.
MODEL_NAME = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]{1,128}")  # not . or .., which would be a folder
FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]+")


def model_name(stem: str) -> str:
    """A model's name made of that of what it is trained on: what a name cannot have is a dash."""
    return f"gan-{FORBIDDEN.sub('-', stem)}"[:128]

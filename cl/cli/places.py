"""Where the configuration files are: beside `cl` in a source tree, inside it in an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def conf_folder() -> Path:
    """Return the folder of `config.yaml` and its groups."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _PACKAGE.parent / "conf"

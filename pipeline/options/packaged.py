"""What comes with the package beside `pipeline/`: its configs, and the folders whose names others use too.

`encoders`, `heads`, `synth` and `configs` are common names. Configs are found by where they lie and never by importing
`configs`, so that no other package or folder of that name comes between. The three that are imported can be hidden by
something else on the path; that is said before anything is imported from them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
SIBLINGS = ("encoders", "heads", "synth")


def check_not_hidden() -> None:
    """Raises ValueError if one of our packages is hidden by another one of its name: which file hides which."""
    for name in SIBLINGS:
        ours = ROOT / name / "__init__.py"
        if not ours.is_file():
            raise ValueError(
                f"{ours} is missing: the installation is damaged, perhaps by another package with a folder {name}/ "
                "that was uninstalled; run `pip install --force-reinstall --no-deps` on this package"
            )
        found = _origin(name)
        if found is None or not found.is_file() or not found.samefile(ours):
            raise ValueError(
                f"{found or 'something'} hides {ours}: Python finds another {name!r} first. Rename or remove it, "
                "uninstall its package, or start from another folder (or with PYTHONSAFEPATH=1), and take its folder "
                "out of PYTHONPATH; a virtual environment of its own for this package avoids all of that"
            )


def _origin(name: str) -> Path | None:
    """The file or folder that `import name` would take, or has taken."""
    try:
        spec = find_spec(name)
    except ValueError:  # a module without a spec was put there by hand
        return None
    if spec is None:
        return None
    if spec.origin is not None and spec.has_location:
        return Path(spec.origin)
    return next(map(Path, spec.submodule_search_locations or ()), None)


def find_config(name_or_path: str) -> Path:
    """A YAML file by its path, or by the name of one that comes with the package, such as `thumos14/localize_gtad`.

    Raises:
        ValueError: there is neither; lists the names.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    packaged = CONFIGS / f"{name_or_path}.yaml"
    if packaged.is_file():
        return packaged
    names = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))
    if not names:
        raise ValueError(
            f"--config {name_or_path}: no such file, and {CONFIGS} is empty or gone: the installation is damaged, "
            "perhaps by another package with a folder configs/ that was uninstalled; run "
            "`pip install --force-reinstall --no-deps` on this package"
        )
    raise ValueError(
        f"--config {name_or_path}: no such file, and no config of that name; the names are {', '.join(names)}"
    )

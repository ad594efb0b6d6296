"""Packages that only a part of companion needs."""

_SOURCE = "git+https://github.com/ntk-robustness/ntk-robustness"  # no index of packages has it


def missing(package: str, extra: str | None = None) -> ImportError:
    """The error of who needs a package that is not installed; raise it from the original one.

    Args:
        package: what could not be imported.
        extra: which extra of pyproject.toml brings it; None: none does.
    """
    whole = "" if extra is None else f"pip install 'ntk-robustness[{extra}] @ {_SOURCE}', or "
    return ImportError(f"this needs {package}: {whole}pip install {package}")

"""Packages that only a part of companion needs."""


def missing(package: str, extra: str) -> ImportError:
    """The error of who imports a room whose extra is not installed; raise it from the original one.

    Args:
        package: what could not be imported.
        extra: which extra of pyproject.toml brings it.
    """
    return ImportError(
        f"this needs {package}: pip install 'ntk-robustness[{extra}]', or pip install {package}"
    )

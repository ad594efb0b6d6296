"""The versions that numbers can depend on."""

import importlib.metadata
import platform

import companion

_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "neural-tangents", "flax", "optax")


def versions() -> dict[str, str]:
    """List the versions that numbers can depend on; a package that is missing is "absent"."""
    versions = {"python": platform.python_version(), "companion": companion.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions

"""jaxlib's fault with weights found by their address: it cannot reach whoever imports companion."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion._core.weights_by_address import FLAG, avoid

ROOT = Path(__file__).resolve().parent.parent
STARTED = {"jax._src.xla_bridge": SimpleNamespace(_backends={"cpu": object()})}


@pytest.mark.parametrize("size", [(100, 784, 320), (128, 512, 512)], ids=str)
def test_products_with_new_weights_where_old_ones_lay_are_right(size):
    rows, inner, columns = size
    product = jax.jit(lambda w, x: x @ w)
    x, got = jnp.ones((rows, inner)), []
    for value in range(60):
        w = jnp.full((inner, columns), float(value))
        got.append(float(product(w, x)[-1, -1]))
        del w
    np.testing.assert_allclose(got, inner * np.arange(60), rtol=1e-5)


@pytest.mark.parametrize(
    ("version", "flags", "expected"),
    [
        ("0.7.2", "", f"{FLAG}=false"),
        ("0.8.1", "--xla_dump_to=x", f"--xla_dump_to=x {FLAG}=false"),
        ("0.8.0rc1", "", f"{FLAG}=false"),
        ("0.7.2", f"{FLAG}=true", f"{FLAG}=true"),
        ("0.8.2", "", ""),
        ("0.10.2", "", ""),
        ("0.12.0.1", "--xla_dump_to=x", "--xla_dump_to=x"),
    ],
    ids=["oldest", "last with it", "candidate", "the user's word", "mended", "locked", "newest"],
)
def test_only_versions_with_the_fault_lose_xnnpack(version, flags, expected):
    environ = {"XLA_FLAGS": flags}
    avoid(version, environ, {})
    assert environ["XLA_FLAGS"] == expected


def test_where_jax_has_started_already_the_import_says_what_to_do():
    with pytest.raises(ImportError, match=r"import companion before.*XLA_FLAGS=.*=false.*jax >= 0\.8\.2"):
        avoid("0.8.0", {}, STARTED)
    avoid("0.8.2", {}, STARTED)
    avoid("0.8.0", {"XLA_FLAGS": f"{FLAG}=false"}, STARTED)
    accelerated = SimpleNamespace(_backends={"cpu": object(), "cuda": object()})
    avoid("0.8.0", {}, {"jax._src.xla_bridge": accelerated})


def test_the_names_that_say_whether_jax_has_started_are_jax_s_own():
    code = (
        "import sys, jax\n"
        "bridge = sys.modules['jax._src.xla_bridge']\n"
        "before = dict(bridge._backends)\n"
        "jax.devices()\n"
        "print(len(before), sorted(bridge._backends))"
    )
    environ = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environ)
    assert done.stdout.split("\n")[0] == "0 ['cpu']", done.stderr

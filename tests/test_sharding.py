"""All local devices share the work: eight forced CPU devices, in a process of their own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from companion.architectures import conv, fc
from companion.kernels import gram

SIZES = (3, 37, 64)
EIGHT = """
import json, sys
import jax
import numpy as np
from companion.kernels import _plan, _tiles
from companion.architectures import conv, fc
from companion.kernels import gram, plan

folder, sizes = sys.argv[1], json.loads(sys.argv[2])
assert len(jax.local_devices()) == 8
compiled, shards = _plan.compiled, []

def watched(*arguments):
    block = compiled(*arguments)

    def run(*x):
        values = block(*x)
        shards.append([(shard.device.id, list(shard.data.shape)) for shard in values.addressable_shards])
        return values

    run.memory_analysis = block.memory_analysis
    return run

_plan.compiled = watched
results = {}
for architecture in (fc(2), conv(1)):
    for n in sizes:
        x = np.load(f"{folder}/x.npy")[:n]
        results[f"{architecture.name} {n}"] = gram(architecture, x, tile=16)
        results[f"{architecture.name} {n} other"] = gram(architecture, x, x[:5], tile=16)
seen = list(shards)
x = np.load(f"{folder}/x.npy")
results["double"] = gram(fc(2), x.astype(float), tile=16)
half = gram(fc(2), x, out=f"{folder}/store", tile=16)
assert (half == gram(fc(2), x, tile=16)).all()
del shards[:]
with jax.default_device(jax.devices()[3]):
    results["one"] = gram(fc(2), x, tile=16)
np.savez(f"{folder}/results.npz", **results)
print(json.dumps({"shards": seen, "one": shards, "plan": str(plan(fc(2), x, tile=16))}))
"""


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Matrices from eight devices, the shards of every tile, and the inputs."""
    folder = tmp_path_factory.mktemp("eight")
    x = np.random.default_rng(0).uniform(size=(64, 6, 6, 1)).astype(np.float32)
    np.save(folder / "x.npy", x)
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EIGHT, folder, json.dumps(SIZES)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "results.npz")), json.loads(done.stdout), x


@pytest.mark.parametrize("architecture", [fc(2), conv(1)], ids=lambda a: a.name)
@pytest.mark.parametrize("n", SIZES)
def test_eight_devices_give_the_numbers_of_one(eight, architecture, n):
    results, _, x = eight
    kernel = results[f"{architecture.name} {n}"]
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_allclose(kernel, gram(architecture, x[:n], tile=16), rtol=2e-6, atol=0)
    other = gram(architecture, x[:n], x[:n][:5], tile=16)
    np.testing.assert_allclose(results[f"{architecture.name} {n} other"], other, rtol=2e-6, atol=0)


def test_float64_inputs_stay_float64_on_eight_devices(eight):
    results, _, x = eight
    assert results["double"].dtype == np.float64
    np.testing.assert_allclose(results["double"], gram(fc(2), x.astype(float), tile=16), rtol=1e-12)


def test_no_device_is_idle(eight):
    _, told, _ = eight
    assert len(told["shards"]) > 20
    for shards in told["shards"]:
        assert sorted(device for device, _ in shards) == list(range(8))
        assert len({tuple(shape) for _, shape in shards}) == 1
        assert shards[0][1][0] >= 1
    assert "8 × cpu" in told["plan"]


def test_a_default_device_works_alone(eight):
    results, told, x = eight
    assert {device for shards in told["one"] for device, _ in shards} == {3}
    np.testing.assert_array_equal(results["one"], gram(fc(2), x, tile=16))

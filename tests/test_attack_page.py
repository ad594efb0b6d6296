"""The live page computes what companion does: its scripts in Chromium, beside companion in float64."""

import json
import os
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("playwright")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import browse  # noqa: E402

from companion import attacks, guarantees  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("x64")]
PAGE = ROOT / "book" / "attack_it_yourself.md"
BUILT = browse.SITE / "book" / "attack_it_yourself.html"
STATIC = (ROOT / "book" / "_static").as_uri()
DIGITS = 50
CASES = [("ntk", 0), ("nngp", 2)]
HEAD = (
    '<!doctype html><html lang="en" data-theme="light"><head><title>t</title>'
    '<link rel="icon" href="data:,"></head><body class="bd-article">'
)
OPEN = """() => {
  const engine = Kernel.open(JSON.parse(document.getElementById('attack-data').textContent));
  const unit = (c) => Array.from({length: 10}, (_, j) => Number(j === c));
  const array = (x) => Float64Array.from(x);
  window.look = (kind, ridge, images) => {
    const f = engine.predictor(kind, ridge), seen = images.map((x) => f.look(array(x)));
    return seen.map((one) => ({
      outputs: [...one.outputs],
      radius: f.radius(one),
      gradients: [3, 8].map((c) => [...f.gradient(one, unit(c))]),
    }));
  };
  window.attack = (kind, ridge, images, labels, norm, eps, steps) => {
    const f = engine.predictor(kind, ridge);
    return images.map(array).map((x, i) => {
      if (steps > 1) return [...Kernel.pgd(f, x, labels[i], norm, eps, steps).attacked];
      const seen = f.look(x), gradient = f.gradient(seen, Kernel.margin(seen.outputs, labels[i]).weights);
      return [...Kernel.oneStep(gradient, x, norm, eps)];
    });
  };
}"""


@pytest.fixture(scope="module")
def cells():
    """What the page's own cells make, of fewer training digits, and what they hand to its script."""
    text, shown = PAGE.read_text("utf8"), []
    codes = re.findall(r"```\{code-cell\} ipython3\n(?::tags: .*?\n)?(.*?)```", text, re.S)[:2]
    names, before = {}, jax.config.jax_enable_x64
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPANION_PAGE", "1")
        patch.setattr("IPython.display.display", lambda one, **_: shown.append(one))
        for code in codes:
            exec(compile(code.replace("n_train=1000", "n_train=300"), "page", "exec"), names)
    jax.config.update("jax_enable_x64", before)
    return names, next(one.data for one in shown if "attack-data" in getattr(one, "data", ""))


@pytest.fixture(scope="module")
def live(cells, browser, tmp_path_factory):
    """The page's own HTML with that data, in a browser; it must not complain."""
    body = re.search(r"```\{raw\} html\n(.*?)```", PAGE.read_text("utf8"), re.S)[1]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(HEAD + body.replace("../_static", STATIC) + cells[1] + "</body></html>", "utf8")
    with browse.visit(browser, path) as (page, problems):
        page.evaluate(OPEN)
        yield page
    assert problems == []


@pytest.fixture
def fresh(live):
    """The same page as it opens: whoever uses its controls leaves them where they are."""
    live.reload()
    live.evaluate(OPEN)
    return live


def call(page, name, *values):
    """A function of the page; as text, since Playwright takes a millisecond for every hundred numbers."""
    text = f"(text) => JSON.stringify(window.{name}(...JSON.parse(text)))"
    return json.loads(page.evaluate(text, json.dumps(values)))


def flat(x):
    return x.reshape(len(x), -1).tolist()


@pytest.fixture
def images(cells):
    digits = cells[0]["digits"]
    return cells[0]["x_test"][:DIGITS], digits.y_test[:DIGITS]


@pytest.mark.parametrize(("kind", "place"), CASES)
def test_outputs_gradients_and_radii_are_companions(cells, live, images, kind, place):
    f, (x, _) = cells[0]["fits"][kind, cells[0]["RIDGES"][place]], images
    found = call(live, "look", kind, place, flat(x))
    np.testing.assert_allclose([one["outputs"] for one in found], np.asarray(f(x)), atol=1e-9)
    wanted = np.asarray(f.gradient(x)).reshape(len(x), 10, -1)[:, [3, 8]]
    np.testing.assert_allclose([one["gradients"] for one in found], wanted, atol=1e-9)
    radii = np.array([one["radius"] for one in found])
    np.testing.assert_allclose(radii, guarantees.radius(f, x), rtol=1e-4, atol=1e-7)
    assert (radii > 0).all()


def test_an_image_of_the_training_set_is_no_exception(cells, live):
    f, x = cells[0]["fits"]["ntk", 0.01], cells[0]["x"][:2]
    found = call(live, "look", "ntk", 0, flat(x))
    np.testing.assert_allclose([one["outputs"] for one in found], np.asarray(f(x)), atol=1e-9)
    gradients = np.asarray(f.gradient(x)).reshape(len(x), 10, -1)[:, [3, 8]]
    np.testing.assert_allclose([one["gradients"] for one in found], gradients, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize(
    ("kind", "place", "norm", "eps"),
    [("ntk", 0, "linf", 0.1), ("ntk", 0, "l2", 1.0), ("nngp", 2, "linf", 0.1)],
)
def test_attacked_images_are_companions(cells, live, images, kind, place, norm, eps, steps):
    f, (x, y) = cells[0]["fits"][kind, cells[0]["RIDGES"][place]], images
    attack, threat = (attacks.fgsm if steps == 1 else attacks.pgd), attacks.Threat(norm, eps)
    wanted = np.array(flat(attack(f, x, y, threat)))
    found = np.array(call(live, "attack", kind, place, flat(x), y.tolist(), norm, eps, steps))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(found - flat(x)).max() > 0.05


def test_random_directions_are_balanced_and_isotropic(live):
    directions = "([norm, seed]) => [...Kernel.directions(10000, norm, seed)]"
    signs = np.array(live.evaluate(directions, ["linf", 1]))
    assert set(signs) == {-1, 1}
    assert abs(signs.mean()) < 4 / 100
    normal = np.array(live.evaluate(directions, ["l2", 1]))
    assert abs(normal.mean()) < 4 / 100
    assert normal.var() == pytest.approx(1, abs=0.06)
    assert abs((signs[1:] * signs[:-1]).mean()) < 4 / 100
    assert not np.array_equal(signs, live.evaluate(directions, ["linf", 2]))


def picture(page):
    canvas = "document.getElementById('attack-clean').getContext('2d')"
    data = page.evaluate(f"() => JSON.stringify([...{canvas}.getImageData(0, 0, 28, 28).data])")
    return np.array(json.loads(data)).reshape(28, 28, 4)[..., 0]


def numbers(page):
    return page.locator(".attack-outputs tbody .number").all_inner_texts()


def test_a_digit_and_epsilon_are_chosen_by_keys(fresh):
    chosen = fresh.locator("#attack-digits input:checked")
    before, first = numbers(fresh), chosen.get_attribute("aria-label")
    chosen.focus()
    fresh.keyboard.press("ArrowRight")
    assert chosen.get_attribute("aria-label") != first
    assert numbers(fresh) != before
    fresh.locator("#attack-eps").focus()
    fresh.keyboard.press("Home")
    fresh.wait_for_function("document.getElementById('attack-shown').textContent === '0.000'")
    columns = np.reshape(numbers(fresh), (10, 3))
    assert (columns == columns[:, :1]).all()  # nothing is changed
    fresh.keyboard.press("End")
    fresh.wait_for_function("document.getElementById('attack-shown').textContent === '0.300'")
    columns = np.reshape(numbers(fresh), (10, 3))
    assert (columns[:, 1] != columns[:, 0]).mean() > 0.5
    said = fresh.locator("#attack-said")
    fresh.wait_for_function("document.getElementById('attack-said').textContent.includes('0.300')")
    assert "random signs" in said.inner_text()
    assert "(L2)" in said.inner_text()


def test_a_digit_is_drawn_by_keys_and_by_mouse(fresh):
    pad, label = fresh.locator("#attack-pad"), "() => document.getElementById('attack-own').checked"
    pad.focus()
    fresh.keyboard.press(" ")
    for _ in range(14):
        fresh.keyboard.press("ArrowDown")
    fresh.keyboard.press(" ")
    assert fresh.evaluate(label)
    drawn = picture(fresh)
    rows, columns = np.nonzero(drawn)
    # Scaled to the data set's 20 pixels, its center of mass in the middle.
    assert 19 <= np.ptp(rows) + 1 <= 22
    assert np.average(rows + 0.5, weights=drawn[rows, columns]) == pytest.approx(14, abs=0.51)
    assert np.average(columns + 0.5, weights=drawn[rows, columns]) == pytest.approx(14, abs=0.51)
    assert fresh.locator("#attack-clean + figcaption b").inner_text() == "says 1"
    fresh.keyboard.press("Delete")
    assert not picture(fresh).any()
    box = pad.bounding_box()
    fresh.mouse.move(box["x"] + 50, box["y"] + 40)
    fresh.mouse.down()
    fresh.mouse.move(box["x"] + 110, box["y"] + 40, steps=4)
    fresh.mouse.move(box["x"] + 70, box["y"] + 140, steps=4)
    fresh.mouse.up()
    assert fresh.locator("#attack-clean + figcaption b").inner_text() == "says 7"


def test_what_is_certified_lies_below_what_is_broken(fresh):
    width = "(name) => parseFloat(getComputedStyle(document.getElementById(`attack-${name}`)).width)"
    for kind in ("ntk", "nngp"):
        fresh.locator("#attack-kind").select_option(kind)
        fresh.locator("#attack-norm").select_option("l2")
        fresh.wait_for_timeout(600)
        sure, broken = (fresh.evaluate(width, name) for name in ("sure", "broken"))
        whole = fresh.locator(".attack-track").bounding_box()["width"]
        assert 0 < sure <= whole - broken < whole


@pytest.mark.skipif(not BUILT.exists(), reason="the book is not built: make book")
def test_the_page_weighs_little_and_has_every_predictor():
    scripts = [ROOT / "book" / "_static" / f"attack{end}" for end in ("_math.js", "_page.js", ".css")]
    assert os.path.getsize(BUILT) + sum(map(os.path.getsize, scripts)) < 1_500_000
    assert BUILT.read_text("utf8").count('"alpha":"') == 8


@pytest.mark.skipif(not BUILT.exists(), reason="the book is not built: make book")
def test_the_built_page_follows_the_slider_within_a_frame(browser):
    move = """async () => {
      const slider = document.getElementById('attack-eps'), times = [];
      for (let i = 1; i <= 31; i++) {
        slider.value = 0.005 * i;
        slider.dispatchEvent(new Event('input'));
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        times.push(Number(document.getElementById('attack').dataset.milliseconds));
      }
      return times.sort((a, b) => a - b)[15];
    }"""
    with browse.visit(browser, BUILT) as (page, _):
        assert 0 < page.evaluate(move) < 1000 / 60

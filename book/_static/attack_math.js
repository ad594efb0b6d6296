/* Kernel regression in the browser: outputs, gradients, attacks and certified radii of a network with one hidden
   ReLU layer of infinite width, from the closed formula of its kernels. No page, no drawing: attack_page.js has
   those. The numbers come from companion while the book is built; tests/test_attack_page.py compares with it.

   A classic script and no module: browsers load no module from a file:// address, and this page works there. */
const Kernel = (() => {
  "use strict";
  const NEAR = 1e-3; // below this 1 − cos is computed again, from the difference of two images
  const UNIT = 2 ** -53; // half an ulp of 1: all is computed in double precision
  const SAFE = 1 + 1e-9; // far above the rounding of a bound

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);

  /* Images as companion packs them: a bit for every pixel that is not black, and these pixels' bytes. The
     value is that of float32(byte / 255), which the coefficients were computed with. */
  function unpack({ count, pixels, mask, values }) {
    const bits = bytes(mask), some = bytes(values);
    const starts = new Int32Array(count + 1), places = new Uint16Array(some.length);
    const levels = Float64Array.from(some, (byte) => Math.fround(byte / 255));
    for (let i = 0, at = 0; i < count; i++) {
      for (let j = 0; j < pixels; j++) {
        const bit = i * pixels + j;
        if (bits[bit >> 3] & (128 >> (bit & 7))) places[at++] = j;
      }
      starts[i + 1] = at;
    }
    return { count, pixels, starts, places, levels };
  }

  function image(set, i) {
    const x = new Float64Array(set.pixels);
    for (let a = set.starts[i]; a < set.starts[i + 1]; a++) x[set.places[a]] = set.levels[a];
    return x;
  }

  const square = (x) => x.reduce((sum, value) => sum + value * value, 0);
  const length = (x) => Math.sqrt(square(x));
  const largest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

  /* Every set of coefficients, by kind ("nngp" or "ntk") and place of its ridge, over one training set. */
  function open(data) {
    const set = unpack(data.train), n = set.count, d = set.pixels;
    const v = data.w_std ** 2, b2 = data.b_std ** 2, gamma = v / 2, vd = v / d;
    const { starts, places, levels } = set;
    const roots = new Float64Array(n); // √p of every training image, p the variance of the first layer
    const lengths = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let a = starts[i]; a < starts[i + 1]; a++) sum += levels[a] * levels[a];
      lengths[i] = Math.sqrt(sum);
      roots[i] = Math.sqrt(vd * sum + b2);
    }

    /* ½ |u − u'|² for the unit vectors u of (√(v/d) x, b): what 1 − cos is, without its cancellation. */
    function exactGap(x, r, i) {
      const other = image(set, i);
      let sum = 0;
      for (let j = 0; j < d; j++) sum += (x[j] / r - other[j] / roots[i]) ** 2;
      return (vd * sum + b2 * (1 / r - 1 / roots[i]) ** 2) / 2;
    }

    /* Θ(x, X), and what its gradient needs: ∇Θ(x, x_i) = along[i] x_i + own[i] x.
       With φ the angle of x and x_i in the first layer, κ₀ = 1 − φ/π and κ₁ = cos φ + (sin φ − φ cos φ)/π:
       conjugate kernel v/2 √(p p') κ₁ + b², tangent kernel that plus v/2 κ₀ q (Cho & Saul 2009; Jacot et al. 2018). */
    function kernel(x, kind) {
      const entries = new Float64Array(n), along = new Float64Array(n), own = new Float64Array(n);
      const tangent = kind === "ntk", r = Math.sqrt(vd * square(x) + b2);
      for (let i = 0; i < n; i++) {
        let dot = 0;
        for (let a = starts[i]; a < starts[i + 1]; a++) dot += levels[a] * x[places[a]];
        const q = vd * dot + b2, both = r * roots[i];
        let gap = Math.max(1 - q / both, 0);
        if (gap < NEAR) gap = exactGap(x, r, i);
        const cosine = 1 - gap, angle = 2 * Math.asin(Math.sqrt(Math.min(gap / 2, 1)));
        const sine = Math.sqrt(gap * (2 - gap)), k0 = 1 - angle / Math.PI;
        entries[i] = gamma * both * (cosine + (sine - angle * cosine) / Math.PI) + b2;
        along[i] = gamma * vd * k0;
        own[i] = (gamma * vd * roots[i] * sine) / (Math.PI * r);
        if (tangent) {
          // At equal inputs the kernel has a kink; companion too takes the mean of the two slopes there.
          const bend = sine > 1e-12 ? cosine / (Math.PI * sine) : 0;
          entries[i] += gamma * k0 * q;
          along[i] += gamma * vd * (k0 + bend);
          own[i] -= (gamma * vd * bend * q) / (r * r);
        }
      }
      return { entries, along, own };
    }

    /* One predictor f(x) = Θ(x, X) α: companion's coefficients (n, k), in float32. */
    function predictor(kind, ridge) {
      const { alpha: packed, squares } = data.predictors[kind][ridge];
      const alpha = floats(packed), k = alpha.length / n;
      /* guarantees.modulus: ‖φ(x') − φ(x)‖² ≤ quadratic ε² + bend √p(x) ε, and a bound of ‖φ(0)‖. */
      const tangent = kind === "ntk";
      const quadratic = SAFE * gamma * vd * (tangent ? 2 : 1);
      const bend = tangent ? (SAFE * 2 * gamma * Math.sqrt(vd)) / Math.PI : 0;
      const origin = SAFE * Math.sqrt(b2 + gamma * b2 * (tangent ? 2 : 1));
      const size = (of) => origin + Math.sqrt(quadratic * of * of + bend * Math.sqrt(b2) * of);
      const weights = new Float64Array(k); // Σ |α| ‖φ(x_i)‖ of every output
      for (let i = 0; i < n; i++)
        for (let c = 0; c < k; c++) weights[c] += Math.abs(alpha[i * k + c]) * size(lengths[i]);

      function look(x) {
        const known = kernel(x, kind), outputs = new Float64Array(k);
        for (let i = 0; i < n; i++)
          for (let c = 0; c < k; c++) outputs[c] += alpha[i * k + c] * known.entries[i];
        return { x, known, outputs, said: largest(outputs) };
      }

      /* ∇ₓ Σ_c w_c f_c, from what `look` knows: sums over the training images, no second kernel. */
      function gradient({ x, known }, w) {
        const found = new Float64Array(d);
        let self = 0;
        for (let i = 0; i < n; i++) {
          let weight = 0;
          for (let c = 0; c < k; c++) if (w[c]) weight += w[c] * alpha[i * k + c];
          self += weight * known.own[i];
          weight *= known.along[i];
          for (let a = starts[i]; a < starts[i + 1]; a++) found[places[a]] += weight * levels[a];
        }
        for (let j = 0; j < d; j++) found[j] += self * x[j];
        return found;
      }

      /* Certified L2 radius: the least ε at which ‖f_a − f_b‖ ω(ε) reaches f_a − f_b, as guarantees.radius
         has it. Its allowance for rounding is taken for double precision. */
      function radius({ x, outputs, said }) {
        const entry = UNIT * (4 * Math.sqrt(d) + 32), error = entry + 4 * UNIT * Math.sqrt(n + 1);
        const linear = bend * Math.sqrt(vd * square(x) + b2);
        let allowed = Infinity;
        for (let b = 0; b < k; b++) {
          if (b === said) continue;
          const both = weights[said] + weights[b], norm = SAFE * Math.sqrt(squares[said * k + b] + entry * both * both);
          const left = outputs[said] - outputs[b] - 2 * error * both * size(length(x));
          allowed = Math.min(allowed, Math.max(left, 0) / (norm + error * both));
        }
        const root = Math.sqrt(linear ** 2 + 4 * quadratic * allowed ** 2);
        return allowed > 0 ? (2 * allowed ** 2 * (1 - 1e-9)) / (linear + root) : 0;
      }

      return { classes: k, look, gradient, radius };
    }
    return { predictor };
  }

  /* The margin max_{j≠y} f_j − f_y, which an attack raises: its value, and its weights for `gradient`. */
  function margin(outputs, label) {
    let other = -1;
    for (let c = 0; c < outputs.length; c++) if (c !== label && (other < 0 || outputs[c] > outputs[other])) other = c;
    const weights = new Float64Array(outputs.length);
    weights[other] = 1;
    weights[label] = -1;
    return { value: outputs[other] - outputs[label], weights };
  }

  const clip = (value, low, high) => Math.min(Math.max(value, low), high);

  /* A step of `size` from `now` along a gradient, then back into the ball around x and into [0, 1]. */
  function step(norm, gradient, now, x, size, eps) {
    if (norm === "linf")
      return now.map((value, j) =>
        clip(value + size * Math.sign(gradient[j]), Math.max(x[j] - eps, 0), Math.min(x[j] + eps, 1)));
    const scale = size / (length(gradient) || 1);
    const moved = now.map((value, j) => value + scale * gradient[j] - x[j]);
    const back = Math.min(1, eps / (length(moved) || 1));
    return moved.map((change, j) => clip(x[j] + back * change, 0, 1));
  }

  /* One step of length ε: only the gradient at x, which a caller who moves ε can keep. */
  const oneStep = (gradient, x, norm, eps) => step(norm, gradient, x, x, eps, eps);

  /* PGD on the margin, from x, steps of 2.5 ε / steps; the best of all points on its way, as attacks.pgd. */
  function pgd(f, x, label, norm, eps, steps) {
    let now = x, best = x, score = -Infinity, seen = null;
    for (let i = 0; i <= steps; i++) {
      const here = f.look(now), { value, weights } = margin(here.outputs, label);
      const reached = here.said !== label ? Math.max(value, Number.MIN_VALUE) : Math.min(value, 0);
      if (reached > score) [best, score, seen] = [now, reached, here];
      if (i < steps) now = step(norm, f.gradient(here, weights), now, x, (2.5 * eps) / steps, eps);
    }
    return { attacked: best, seen };
  }

  /* The control: random signs, or for L2 a random direction, the same for a seed whatever ε is. */
  function directions(d, norm, seed) {
    let state = seed >>> 0;
    const uniform = () => { // mulberry32
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    if (norm === "linf") return Float64Array.from({ length: d }, () => (uniform() < 0.5 ? -1 : 1));
    return Float64Array.from({ length: d }, () =>
      Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
  }

  return { open, unpack, image, margin, oneStep, pgd, directions, length, largest };
})();

// Colours that mean something: the hue of a checkpoint is its tier's, and its shade tells it from others of the tier.

const SHADES = [100, 68, 84, 52];

/** A CSS colour for each checkpoint of the catalog, by name. */
export function coloursOf(checkpoints) {
  const seen = new Map();
  return new Map(
    checkpoints.map(({ name, tier }) => {
      const nth = seen.get(tier) ?? 0;
      seen.set(tier, nth + 1);
      return [name, shade(tier, nth)];
    }),
  );
}

const OF_TASKS = ["var(--ink)", "var(--second)"];

/** The colour of the nth task, which has no tier's hue. */
export function taskColour(nth) {
  const share = SHADES[Math.floor(nth / OF_TASKS.length) % SHADES.length];
  return `color-mix(in oklab, ${OF_TASKS[nth % OF_TASKS.length]} ${share}%, var(--paper))`;
}

/** The colour of a tier, or its nth shade. */
export function shade(tier, nth = 0) {
  return `color-mix(in oklab, var(--${tier}, var(--ink-3)) ${SHADES[nth % SHADES.length]}%, var(--paper))`;
}

// The scale of the budget, which slider and lanes share: logarithmic, from a millisecond to half a minute.

export const LEAST_MS = 1;
export const MOST_MS = 30_000;
export const STEPS = 1000;
export const TICKS_MS = [1, 10, 100, 1_000, 10_000];

/** Where a time lies on the scale, 0 to 1; at an end what lies beyond it. */
export function placeOf(ms) {
  const place = Math.log(ms / LEAST_MS) / Math.log(MOST_MS / LEAST_MS);
  return Math.min(1, Math.max(0, place));
}

/** The time at a place, to two significant figures: nobody grants 49.97 milliseconds. */
export function msAt(place) {
  return Number((LEAST_MS * (MOST_MS / LEAST_MS) ** place).toPrecision(2));
}

// Figures as people read them: times, shares and rates, in as few digits as tell something.

const NONE = "–";

/** A time given in milliseconds: 0.66 ms, 5.3 ms, 240 ms, 1.5 s. */
export function time(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return NONE;
  if (Math.abs(ms) >= 999.5) return `${brief(ms / 1000)} s`;
  return `${brief(ms)} ms`;
}

/** A share of one in percent; whole from 99.95 on only where it is all. */
export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return NONE;
  if (share < 1 && share > 0.999) return "99.9 %";
  const points = share * 100;
  return `${trimmed(points.toFixed(1))} %`;
}

/** A number to about three figures, without zeros that say nothing. */
export function brief(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 99.95) return Math.round(value).toLocaleString("en");
  return trimmed(value.toFixed(size >= 0.9995 ? 1 : 2));
}

function trimmed(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

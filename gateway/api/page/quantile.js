// Quantiles from the cumulative buckets of a histogram, as PromQL's histogram_quantile takes them.

/**
 * The q-quantile of `buckets`, a map from upper bound to cumulative count; null where nothing was observed. Linear
 * within a bucket; of what lies over the last finite bound no more is known than that bound.
 */
export function quantile(q, buckets) {
  const bounds = [...buckets.keys()].sort((a, b) => a - b);
  const total = buckets.get(Infinity) ?? 0;
  if (!(total > 0)) return null;
  const rank = q * total;
  let below = 0;
  let from = 0;
  for (const bound of bounds) {
    const count = buckets.get(bound);
    if (bound === Infinity) return from;
    if (count >= rank && count > below) return from + ((bound - from) * (rank - below)) / (count - below);
    below = Math.max(below, count);
    from = bound;
  }
  return from;
}

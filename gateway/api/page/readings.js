// What the gateway did lately, from the increases of its counters and its gauges: pure functions of frames.
//
// A frame is what one scrape told: {atS, seconds since the one before, grown: increases, stands: gauges}.

import { number } from "./exposition.js";
import { quantile } from "./quantile.js";

const REQUESTS = "punctual_requests_total";
const LATENCY = "punctual_request_latency_seconds_bucket";
export const COUNTERS = [REQUESTS, LATENCY];
export const GAUGES = [
  "punctual_congestion_price",
  "punctual_checkpoint_backlog_seconds",
  "punctual_checkpoint_quality",
  "punctual_checkpoint_replicas_expected",
  "punctual_checkpoint_replicas_up",
  "punctual_waiting_requests",
  "punctual_replica_backlog_seconds",
  "punctual_replica_up",
  "punctual_build_info",
];
export const TIERS = ["quality", "balanced", "realtime"];

/** How an outcome counts. What asked for nothing that could be served (invalid, too_long) was not offered. */
const ENDS = {
  in_time: "inTime",
  late: "late",
  lead: "late", // nothing was written in time
  infeasible: "refused",
  shed: "refused",
  unavailable: "refused",
  expired: "expired",
  failed: "failed",
  cancelled: "left",
};

/** The outcomes of requests that had an answer. */
const ANSWERED = ["in_time", "lead", "late"];

/** Requests a second by how they ended, and what follows: of all tasks or one. A ratio is null if none was offered. */
export function promises(frames, task = null) {
  const rate = rateOver(frames);
  const ended = { inTime: 0, late: 0, refused: 0, expired: 0, failed: 0, left: 0 };
  for (const { labels, value } of grown(frames, REQUESTS)) {
    const end = ENDS[labels.outcome];
    if (end !== undefined && (task === null || labels.task === task)) ended[end] += value;
  }
  const offered = Object.values(ended).reduce((sum, count) => sum + count, 0);
  return {
    asked: offered,
    offered: rate(offered),
    goodput: rate(ended.inTime),
    late: rate(ended.late),
    refused: rate(ended.refused),
    expired: rate(ended.expired),
    failed: rate(ended.failed),
    attainment: offered > 0 ? ended.inTime / offered : null,
    refusedShare: offered > 0 ? ended.refused / offered : null,
  };
}

/** Mean quality over the requests offered of a task, a late or refused one counting 0; null where it is not known. */
export function effectiveQuality(frames, task, worth) {
  let offered = 0;
  let sum = 0;
  for (const { labels, value } of grown(frames, REQUESTS)) {
    if (value === 0 || labels.task !== task || !(labels.outcome in ENDS)) continue;
    offered += value;
    if (labels.outcome !== "in_time") continue;
    if (!worth.has(labels.checkpoint)) return null;
    sum += value * worth.get(labels.checkpoint);
  }
  return offered > 0 ? sum / offered : null;
}

/** Answers a second by checkpoint. */
export function answers(frames) {
  const rate = rateOver(frames);
  const rates = new Map();
  for (const { labels, value } of grown(frames, REQUESTS)) {
    if (!ANSWERED.includes(labels.outcome)) continue;
    rates.set(labels.checkpoint, (rates.get(labels.checkpoint) ?? 0) + rate(value));
  }
  return rates;
}

/** The q-quantile of latency in seconds by the values of a label, `tier` or `checkpoint`. */
export function latency(frames, label, q) {
  const buckets = new Map();
  for (const { labels, value } of grown(frames, LATENCY)) {
    const of = buckets.get(labels[label]) ?? new Map();
    const bound = number(labels.le);
    of.set(bound, (of.get(bound) ?? 0) + value);
    buckets.set(labels[label], of);
  }
  return new Map([...buckets].map(([name, of]) => [name, quantile(q, of)]));
}

/** A gauge by the values of a label: the largest where several processes tell it, or their sum. Null if none tells. */
export function gauge(frame, name, label, join = Math.max) {
  const samples = frame.stands.get(name);
  if (samples === undefined) return null;
  const values = new Map();
  for (const { labels, value } of samples) {
    const known = values.get(labels[label]);
    values.set(labels[label], known === undefined ? value : join(known, value));
  }
  return values;
}

/** Work queued by checkpoint in seconds: as the gateway reckons it, or as the replicas of an older one tell it. */
export function backlog(frame) {
  const sum = (a, b) => a + b;
  return (
    gauge(frame, "punctual_checkpoint_backlog_seconds", "checkpoint") ??
    gauge(frame, "punctual_replica_backlog_seconds", "checkpoint", sum)
  );
}

/** How many processes of the application did not answer the scrape. */
export function silent(frame) {
  return (frame.stands.get("punctual_replica_up") ?? []).filter(({ value }) => value === 0).length;
}

/** The frames of the last so many seconds. */
export function lately(frames, seconds) {
  const until = frames.at(-1)?.atS ?? 0;
  return frames.filter((frame) => frame.atS > until - seconds);
}

/** Counts over these frames as counts a second. The first frame has no length, and nothing in it has grown. */
function rateOver(frames) {
  const seconds = frames.reduce((sum, frame) => sum + frame.seconds, 0);
  return (count) => (seconds > 0 ? count / seconds : 0);
}

function* grown(frames, name) {
  for (const frame of frames) yield* frame.grown.get(name) ?? [];
}

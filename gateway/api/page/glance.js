// One glance: whether promises are kept, and if not, why and what helps. Pure functions of readings.

import { brief, percent } from "./figures.js";

export const KEPT = 0.95;
const SLIPPING = 0.8;
const FEW = 20;

/**
 * The state of the gateway: {level, title, notes}. `level` is good, warn, bad or idle; `notes` are sentences. From a
 * handful of requests no promise is judged: one that is late would be an alarm.
 *
 * Of the last minute: `promises` and answers by tier; of now: replicas missing, prices by task, and how many processes
 * were silent when they were asked. `past` are the promises of all that the gateway's processes had counted when the
 * page was opened; it is told while there is little else to tell.
 */
export function glance({ promises, tiers, missing, prices, silent, past = null }) {
  const broken = [...missingNotes(missing), ...silentNotes(silent)];
  const before = promises.asked < FEW ? pastNotes(past) : [];
  const notes = [...broken, ...lossNotes(promises), ...priceNotes(prices, tiers), ...before];
  const down = missing.some((one) => one.up === 0);
  if (promises.asked === 0) {
    const title = down ? "Idle, and not whole." : "Idle. Nothing was asked in the last minute.";
    return { level: missing.length ? "warn" : "idle", title, notes };
  }
  const { asked, attainment } = promises;
  if (asked < FEW) {
    const kept = Math.round(attainment * asked);
    const requests = asked === 1 ? "One request" : `${brief(asked)} requests`;
    const title = `Quiet. ${requests} in the last minute, ${kept} in time.`;
    return { level: missing.length ? "warn" : "idle", title, notes };
  }
  const share = `${percent(attainment)} of the last minute’s requests were answered in time`;
  if (attainment >= KEPT) {
    const title = `Promises are kept${missing.length ? ", with replicas missing" : ""}: ${share}.`;
    return { level: missing.length ? "warn" : "good", title, notes };
  }
  return attainment >= SLIPPING
    ? { level: "warn", title: `Promises are slipping: ${share}.`, notes }
    : { level: "bad", title: `Promises are broken: only ${share}.`, notes };
}

function missingNotes(missing) {
  return missing.map(({ checkpoint, up, expected }) =>
    up === 0
      ? `${checkpoint} has no replica up; requests go to the others.`
      : `${checkpoint} has ${up} of ${expected} replicas up.`,
  );
}

function pastNotes(past) {
  if (past === null || past.asked === 0) return [];
  const requests = past.asked === 1 ? "one request" : `${brief(past.asked)} requests`;
  return [`Before this page was opened: ${requests}, ${percent(past.attainment)} in time.`];
}

function silentNotes(silent) {
  if (silent === 0) return [];
  const who = silent === 1 ? "One process" : `${silent} processes`;
  return [`${who} did not answer the last scrape: these figures lack theirs.`];
}

function lossNotes({ asked, offered, refused, late, expired, failed, attainment }) {
  if (asked < FEW || attainment >= KEPT) return [];
  const notes = [];
  const share = (rate) => percent(rate / offered);
  if (refused > 0) notes.push(`${share(refused)} refused: more is asked for, or in less time, than is feasible.`);
  if (late > 0) notes.push(`${share(late)} late: best effort answers although no forecast fits the budget.`);
  if (expired > 0) notes.push(`${share(expired)} expired: let in, and no answer came by their deadline.`);
  if (failed > 0) notes.push(`${share(failed)} failed: look at the log of the replicas.`);
  return notes;
}

function priceNotes(prices, tiers) {
  const dear = [...prices].filter(([, price]) => price > 0);
  const total = [...tiers.values()].reduce((sum, rate) => sum + rate, 0);
  const lesser = total > 0 ? 1 - (tiers.get("quality") ?? 0) / total : 0;
  return dear.map(([task, price]) => {
    const served = lesser > 0.005 ? ` ${percent(lesser)} of answers come from below the tier quality.` : "";
    const asks = `${task} is congested at ${brief(price)} points a core-second: quality gives way to time.`;
    return `${asks}${served} More cores or replicas would lower it.`;
  });
}

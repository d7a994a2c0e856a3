// Which arm a unit (a user) is served in a round: a table of `hyperzero`, for Node, Deno and Bun.
//
//   const table = JSON.parse(readFileSync("table.json", "utf8")); // live: {table: ..., hash: sha256}
//   const served = assign(table, "user-17", Date.now() / 1000);
//   served.parameters // serve these
//   served.round      // log an exposure only where it is not null
//
// Copy this file, and assignment.d.mts for TypeScript. vectors.json has what it must answer.
import { createHash } from "node:crypto";

/** A unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over `salt/round/unit`. */
export function place(unit, round, salt) {
  const digest = createHash("sha256").update(`${salt}/${round}/${unit}`, "utf8").digest("hex");
  return parseInt(digest.slice(0, 13), 16) / 16 ** 13;
}

/** Whether a unit is among the `share` of all users for whom the experiment is. */
export function takesPart(unit, share, salt) {
  return place(unit, "experiment", salt) < share;
}

/** Candidate, parameters and round of a unit; a round of null means: log no exposure. */
export function assign(table, unit, now) {
  check(table);
  const stamp = table.stamp ?? {};
  const nobody = { candidate: 0, round: null, parameters: table.arms[0].parameters };
  if (unit === null || unit === undefined || unit === "" || table.round === null) return nobody;
  const hasLease = "valid_until" in stamp;
  if (hasLease && !(stamp.valid_from <= now && now < stamp.valid_until)) return nobody;
  if (!takesPart(unit, table.experiment_share ?? 1, table.salt)) return nobody;
  const at = place(unit, table.round, table.salt);
  const arm = table.arms.find((arm) => at < arm.to);
  return { candidate: arm.candidate, round: table.round, parameters: arm.parameters };
}

/** Refuse a table that this file does not know: it would give users other arms. */
function check(table) {
  const isOurs = table.kind === "hyperzero-torch assignment table";
  if (!isOurs || table.version !== 4 || table.hash !== "sha256") {
    throw new Error("expected an assignment table of version 4 with the hash sha256");
  }
}

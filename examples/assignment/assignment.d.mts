/** A parameter's value. */
export type Value = number | string | boolean;

/** A table as `hyperzero run` writes it with `live: {table: table.json, hash: sha256}`. */
export interface Table {
  kind: string;
  version: number;
  hash: string;
  salt: string;
  round: number | null;
  experiment_share?: number;
  stamp?: { study: string; epoch: string; valid_from?: number; valid_until?: number };
  arms: { candidate: number; share: number; from: number; to: number; parameters: Record<string, Value> }[];
}

/** What a unit is served. Log an exposure only where `round` is not null. */
export interface Served {
  candidate: number;
  round: number | null;
  parameters: Record<string, Value>;
}

/** A unit's place in [0, 1): the same in every language, and another one in every round. */
export function place(unit: string | number | bigint, round: number | string, salt: string): number;

/** Whether a unit is among the `share` of all users for whom the experiment is. */
export function takesPart(unit: string | number | bigint, share: number, salt: string): boolean;

/** Candidate, parameters and round of a unit; `now` in seconds since 1970. */
export function assign(table: Table, unit: string | number | bigint | null | undefined, now: number): Served;

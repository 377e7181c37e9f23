/**
 * Messages as this package shows them: those of the stubs, with durations as numbers of milliseconds.
 *
 * 64-bit integers are `bigint`, points in time are `Date` (milliseconds; the server counts microseconds, and
 * what is below a millisecond is cut off), and fields of a request that are left out have their default.
 */
import type { Duration } from "./stubs/google/protobuf/duration.js";

type Plain = Date | Uint8Array | string | number | boolean | bigint | undefined | null;

/** A message of the server's. */
export type Message<T> = T extends Duration
  ? number
  : T extends Plain
    ? T
    : T extends Array<infer U>
      ? Array<Message<U>>
      : { [K in keyof T]: Message<T[K]> };

/** A message to the server: every field may be left out. */
export type Input<T> = T extends Duration
  ? number
  : T extends Plain
    ? T
    : T extends Array<infer U>
      ? ReadonlyArray<Input<U>>
      : T extends { $case: infer C }
        ? { $case: C } & { [K in Exclude<keyof T, "$case">]: Input<T[K]> }
        : { [K in keyof T]?: Input<T[K]> | undefined };

/** The fields of the contract that are a Duration. A test compares them with the stubs. */
export const DURATION_FIELDS: ReadonlySet<string> = new Set([
  "dayInterval",
  "defaultLeaseDuration",
  "itemTimeout",
  "leaseDuration",
  "lifetime",
  "limitReached",
  "loginInvalid",
  "longest",
  "maxLeaseDuration",
  "minLeaseDuration",
  "overlap",
  "redemptionInterval",
  "remaining",
  "throttled",
  "timeout",
  "waitTimeout",
]);

/** Milliseconds as a Duration of protobuf, exact to the microsecond. */
export function durationOf(milliseconds: number): Duration {
  if (!Number.isFinite(milliseconds)) {
    throw new TypeError("a duration must be a finite number of milliseconds");
  }
  const micros = BigInt(Math.round(milliseconds * 1_000));
  return { seconds: micros / 1_000_000n, nanos: Number(micros % 1_000_000n) * 1_000 };
}

/** A Duration of protobuf in milliseconds. */
export function millisecondsOf(duration: Duration): number {
  return Number(duration.seconds) * 1_000 + duration.nanos / 1_000_000;
}

/** What the stubs take. */
export function toStub(value: unknown): any {
  return convert(value, (field) => (typeof field === "number" ? durationOf(field) : field));
}

/** What callers get. */
export function fromStub<T>(value: T): Message<T> {
  return convert(value, (field) => (typeof field === "object" ? millisecondsOf(field as Duration) : field));
}

function convert(value: unknown, duration: (field: unknown) => unknown): any {
  if (typeof value !== "object" || value === null || value instanceof Date || value instanceof Uint8Array) {
    return value;
  }
  if (Array.isArray(value)) {
    return value.map((each) => convert(each, duration));
  }
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => {
      const isDuration = DURATION_FIELDS.has(name) && field !== undefined && field !== null && typeof field !== "string";
      return [name, isDuration ? duration(field) : convert(field, duration)];
    }),
  );
}

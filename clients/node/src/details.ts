/** The details of an error status (google.rpc), in the trailer `grpc-status-details-bin`. */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

import { millisecondsOf, durationOf } from "./messages.js";
import { Duration } from "./stubs/google/protobuf/duration.js";
import { Status } from "./stubs/google/rpc/status.js";

/** A field of the request that is not as it must be. */
export interface FieldViolation {
  /** The field's path in the contract, such as `expected.amount_minor`. */
  field: string;
  /** What it must be. */
  description: string;
}

/** What an error is about. */
export interface ResourceInfo {
  /** `pool`, `plan`, `account`, `redemption`, … */
  type: string;
  /** Its id. */
  name: string;
}

/** What the details of a status hold. */
export interface Details {
  reason?: string;
  domain?: string;
  metadata: Record<string, string>;
  retryAfter?: number;
  fieldViolations: FieldViolation[];
  resource?: ResourceInfo;
}

const TYPE = "type.googleapis.com/google.rpc.";

/** Reads the details that are known here; others are passed over. */
export function detailsOf(status: Status): Details {
  const details: Details = { metadata: {}, fieldViolations: [] };
  for (const { typeUrl, value } of status.details) {
    readers[typeUrl.slice(typeUrl.lastIndexOf("/") + 1)]?.(new BinaryReader(value), details);
  }
  return details;
}

/** Reads the fields of a message one by one. A field that `read` does not take is passed over. */
function fields(reader: BinaryReader, end: number, read: (field: number) => boolean): void {
  while (reader.pos < end) {
    const [field, wire] = reader.tag();
    if (wire !== WireType.LengthDelimited || !read(field)) {
      reader.skip(wire, field);
    }
  }
}

/** Reads two texts: most of what details consist of. */
function pair(reader: BinaryReader): [string, string] {
  const texts: [string, string] = ["", ""];
  const length = reader.uint32();
  fields(reader, reader.pos + length, (field) => {
    if (field !== 1 && field !== 2) return false;
    texts[field - 1] = reader.string();
    return true;
  });
  return texts;
}

const readers: Record<string, (reader: BinaryReader, details: Details) => void> = {
  "google.rpc.ErrorInfo": (reader, details) =>
    fields(reader, reader.len, (field) => {
      if (field === 1) details.reason = reader.string();
      else if (field === 2) details.domain = reader.string();
      else if (field === 3) {
        const [key, value] = pair(reader);
        details.metadata[key] = value;
      } else return false;
      return true;
    }),
  "google.rpc.RetryInfo": (reader, details) =>
    fields(reader, reader.len, (field) => {
      if (field !== 1) return false;
      details.retryAfter = millisecondsOf(Duration.decode(reader, reader.uint32()));
      return true;
    }),
  "google.rpc.BadRequest": (reader, details) =>
    fields(reader, reader.len, (field) => {
      if (field !== 1) return false;
      const [path, description] = pair(reader);
      details.fieldViolations.push({ field: path, description });
      return true;
    }),
  "google.rpc.ResourceInfo": (reader, details) => {
    const resource = { type: "", name: "" };
    fields(reader, reader.len, (field) => {
      if (field === 1) resource.type = reader.string();
      else if (field === 2) resource.name = reader.string();
      else return false;
      return true;
    });
    details.resource = resource;
  },
};

/** Writes a status with details: for the fake server. */
export function statusOf(code: number, message: string, details: Details): Status {
  const status: Status = { code, message, details: [] };
  const add = (name: string, writer: BinaryWriter) =>
    status.details.push({ typeUrl: TYPE + name, value: Buffer.from(writer.finish()) });
  const two = (writer: BinaryWriter, number: number, first: string, second: string) =>
    writer.uint32((number << 3) | 2).fork().uint32(10).string(first).uint32(18).string(second).join();

  const info = new BinaryWriter().uint32(10).string(details.reason ?? "").uint32(18).string("holdfast");
  for (const [key, value] of Object.entries(details.metadata)) two(info, 3, key, value);
  add("ErrorInfo", info);
  if (details.fieldViolations.length > 0) {
    const bad = new BinaryWriter();
    for (const { field, description } of details.fieldViolations) two(bad, 1, field, description);
    add("BadRequest", bad);
  }
  if (details.retryAfter !== undefined) {
    const retry = new BinaryWriter().uint32(10).fork();
    Duration.encode(durationOf(details.retryAfter), retry);
    add("RetryInfo", retry.join());
  }
  if (details.resource) {
    add("ResourceInfo", new BinaryWriter().uint32(10).string(details.resource.type).uint32(18).string(details.resource.name));
  }
  return status;
}

/** What the fake refuses: the statuses of the contract, with their details. */
import { Metadata, status as Code, type ServiceError } from "@grpc/grpc-js";

import { statusOf, type Details, type FieldViolation } from "../details.js";
import { Status } from "../stubs/google/rpc/status.js";

export class Refusal extends Error {
  readonly status: Status;

  constructor(code: number, reason: string, message: string, details: Partial<Details> = {}) {
    super(message);
    this.status = statusOf(code, message, { metadata: {}, fieldViolations: [], ...details, reason });
  }

  /** As grpc-js sends it. */
  toError(): Partial<ServiceError> {
    const metadata = new Metadata();
    metadata.set("grpc-status-details-bin", Buffer.from(Status.encode(this.status).finish()));
    return { code: this.status.code, details: this.message, metadata };
  }
}

export function notFound(type: string, name: string): Refusal {
  return new Refusal(Code.NOT_FOUND, `${type.toUpperCase()}_NOT_FOUND`, `there is no ${type} ${name}`, {
    resource: { type, name },
  });
}

export function exists(type: string, name: string): Refusal {
  return new Refusal(Code.ALREADY_EXISTS, `${type.toUpperCase()}_ALREADY_EXISTS`, `there is a ${type} ${name} already`, {
    resource: { type, name },
  });
}

export function precondition(reason: string, message: string, metadata: Record<string, string>): Refusal {
  return new Refusal(Code.FAILED_PRECONDITION, reason, message, { metadata });
}

export function invalid(fieldViolations: FieldViolation[]): Refusal {
  const message = fieldViolations.map(({ field, description }) => `${field}: ${description}`).join("; ");
  return new Refusal(Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", message, { fieldViolations });
}

export function reused(requestId: string, fields: string[]): Refusal {
  const message = `request_id ${requestId} was used before with another ${fields.join(", another ")}`;
  return new Refusal(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", message, {
    metadata: { request_id: requestId, fields: fields.join(",") },
    fieldViolations: fields.map((field) => ({ field, description: "differs from the first use of the request_id" })),
  });
}

/** Checks fields; {@link done} refuses all bad ones at once. */
export class Fields {
  readonly #bad: FieldViolation[] = [];

  refuse(field: string, description: string): void {
    this.#bad.push({ field, description });
  }

  pool(value: string, field = "pool_id"): this {
    return this.#match(field, value, /^[\w.-]{1,128}$/, "must be 1 to 128 letters (a-z, A-Z), digits, '.', '_' or '-'");
  }

  batch(value: string, field: string): this {
    return this.#match(field, value, /^[\w.-]{1,64}$/, "must be 1 to 64 letters (a-z, A-Z), digits, '.', '_' or '-'");
  }

  name(field: string, value: string, most: number): this {
    const rule = `must be 1 to ${most} characters, without control characters and without spaces around it`;
    const isBad = value.length < 1 || [...value].length > most || value.trim() !== value || /[\x00-\x1f\x7f-\x9f]/.test(value);
    if (isBad) this.refuse(field, rule);
    return this;
  }

  requestId(value: string): this {
    if (value.startsWith("batch:")) {
      this.refuse("request_id", 'must not begin with "batch:", which names the items of batches');
    }
    return this.name("request_id", value, 128);
  }

  code(value: string): this {
    const trimmed = value.trim();
    const isGood = /^[\x20-\x7e]{4,128}$/.test(trimmed) && trimmed.replace(/[ -]/g, "").length >= 4;
    if (!isGood) this.refuse("code", "must be 4 to 128 printable ASCII characters, 4 of them other than ' ' and '-'");
    return this;
  }

  amount(field: string, money: { amountMinor: bigint; currencyCode: string } | undefined, currency?: string): this {
    if (!money) return this;
    if (money.amountMinor < 1n || money.amountMinor > 10n ** 15n) {
      this.refuse(`${field}.amount_minor`, "must be between 1 and 1000000000000000");
    }
    if (currency !== undefined && money.currencyCode !== currency) {
      this.refuse(`${field}.currency_code`, `must be ${currency}, the pool's currency`);
    }
    return this;
  }

  priority(field: string, value: number): this {
    if (value < 0 || value > 9) this.refuse(field, "must be between 0 and 9");
    return this;
  }

  done(): void {
    if (this.#bad.length > 0) throw invalid(this.#bad);
  }

  #match(field: string, value: string, pattern: RegExp, rule: string): this {
    if (!pattern.test(value)) this.refuse(field, rule);
    return this;
  }
}

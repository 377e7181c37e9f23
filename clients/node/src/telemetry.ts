/** Spans and the trace's context, where the program that uses this has OpenTelemetry. */
import type { Metadata } from "@grpc/grpc-js";
import type * as Api from "@opentelemetry/api";

import { HoldfastError } from "./errors.js";

let loading: Promise<typeof Api | undefined> | undefined;

function openTelemetry(): Promise<typeof Api | undefined> {
  loading ??= import("@opentelemetry/api").catch(() => undefined);
  return loading;
}

/** The span of one call. */
export interface CallSpan {
  end(error?: unknown): void;
}

const NONE: CallSpan = { end() {} };

/** Begins a span for an RPC, such as `/holdfast.v1.RedemptionService/Redeem`, and puts the trace into its metadata. */
export async function beginSpan(path: string, metadata: Metadata): Promise<CallSpan> {
  const api = await openTelemetry();
  if (!api) return NONE;
  const [, service = "", method = ""] = path.split("/");
  const attributes = { "rpc.system": "grpc", "rpc.service": service, "rpc.method": method };
  const tracer = api.trace.getTracer("holdfast-client");
  const span = tracer.startSpan(`${service}/${method}`, { kind: api.SpanKind.CLIENT, attributes });
  const context = api.trace.setSpan(api.context.active(), span);
  api.propagation.inject(context, metadata, { set: (carrier, key, value) => carrier.set(key, value) });
  return {
    end(error) {
      if (error === undefined) {
        span.setAttribute("rpc.grpc.status_code", 0);
      } else {
        const known = error instanceof HoldfastError ? error : undefined;
        if (known) span.setAttribute("rpc.grpc.status_code", known.code);
        span.setAttribute("error.type", known?.reason ?? known?.codeName ?? (error as Error)?.name ?? "Error");
        span.setStatus({ code: api.SpanStatusCode.ERROR });
      }
      span.end();
    },
  };
}

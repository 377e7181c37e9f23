/**
 * A Holdfast for tests: a server of gRPC in this process, on a free port of this machine, with everything in memory.
 *
 * It keeps the contract for leases, redemptions, batches, pools, plans and accounts, with the same reasons and details.
 * It has no days of plans, holds, reversals, providers or tokens; those RPCs answer UNIMPLEMENTED.
 */
import {
  Server,
  ServerCredentials,
  status as Code,
  type handleUnaryCall,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServiceError,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";

import { Holdfast, type HoldfastOptions } from "../client.js";
import { AccountServiceService } from "../stubs/holdfast/v1/account.js";
import { PoolServiceService } from "../stubs/holdfast/v1/pool.js";
import { RedemptionServiceService } from "../stubs/holdfast/v1/redemption.js";
import { AccountServices } from "./accounts.js";
import { Model, type Outcome } from "./model.js";
import { PoolServices } from "./pools.js";
import { RedemptionServices } from "./redemptions.js";
import { Refusal } from "./refusal.js";

export type { Outcome };

/** A refusal that a test asks for. */
export interface Fault {
  /** The RPC: `Redeem`. */
  method: string;
  /** The reason of the error, such as `OVERLOADED`. */
  reason: string;
  /** The code of gRPC; UNAVAILABLE when not given. */
  code?: number;
  /** How many calls it meets; one when not given. */
  times?: number;
  metadata?: Record<string, string>;
  retryAfter?: number;
}

/** The fake. `await using fake = await FakeHoldfast.start()`, or call {@link stop} at the end. */
export class FakeHoldfast {
  readonly #model = new Model();
  readonly #faults: Fault[] = [];
  readonly #outcomes = new Map<string, Outcome[]>();
  #server = new Server();
  #port = 0;
  /** Told of each call that comes: its RPC, and its headers. */
  onCall: ((method: string, headers: Record<string, string | Buffer>) => void) | undefined;

  private constructor() {
    this.#model.outcome = ({ code }) => {
      const scripted = this.#outcomes.get(this.#model.fingerprint(code));
      return (scripted && scripted.length > 1 ? scripted.shift() : scripted?.[0]) ?? {};
    };
  }

  /** Starts a fake with nothing in it. */
  static async start(): Promise<FakeHoldfast> {
    const fake = new FakeHoldfast();
    await fake.#listen();
    return fake;
  }

  /** Its URL: the `server` of a client. */
  get server(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** A client of it. */
  client(options: HoldfastOptions = {}): Holdfast {
    return new Holdfast({ server: this.server, ...options });
  }

  /** Lets time pass for leases and waits, without waiting. */
  advance(milliseconds: number): void {
    this.#model.advance(milliseconds);
  }

  /** What becomes of a card, each time it is redeemed; the last one stays. Cards without any are credited as expected. */
  script(code: string, ...outcomes: Outcome[]): void {
    this.#outcomes.set(this.#model.fingerprint(code), outcomes);
  }

  /** Records the outcome of a redemption that is in doubt. */
  settle(redemptionId: string, outcome: Outcome = {}): void {
    this.#model.settle(redemptionId, outcome);
  }

  /** Refuses the next calls of an RPC. Answers what ends that before. */
  fail(fault: Fault): () => void {
    const met = { ...fault, times: fault.times ?? 1 };
    this.#faults.push(met);
    return () => {
      const at = this.#faults.indexOf(met);
      if (at >= 0) this.#faults.splice(at, 1);
    };
  }

  /** Ends all connections, and listens again on the same port: what is remembered stays. */
  async restart(): Promise<void> {
    this.#server.forceShutdown();
    this.#server = new Server();
    await this.#listen();
  }

  async stop(): Promise<void> {
    this.#server.forceShutdown();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #listen(): Promise<void> {
    const services = [
      [RedemptionServiceService, new RedemptionServices(this.#model)],
      [AccountServiceService, new AccountServices(this.#model)],
      [PoolServiceService, new PoolServices(this.#model)],
    ] as const;
    for (const [definition, service] of services) {
      this.#server.addService(definition, this.#implementation(definition, service as never));
    }
    this.#port = await new Promise((resolve, reject) =>
      this.#server.bindAsync(`127.0.0.1:${this.#port}`, ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : resolve(port),
      ),
    );
  }

  /** The handlers of grpc-js for the RPCs of one service. */
  #implementation(definition: object, services: Record<string, (request: unknown, signal: AbortSignal, call: unknown) => Promise<unknown>>) {
    const implementation: UntypedServiceImplementation = {};
    for (const [name, { requestStream, responseStream }] of Object.entries(definition)) {
      const handler = async (call: any) => {
        this.onCall?.(name, call.metadata.getMap());
        this.#meetFault(name);
        if (!services[name]) throw new Refusal(Code.UNIMPLEMENTED, "UNIMPLEMENTED", `the fake has no ${name}`);
        const abort = new AbortController();
        call.once("cancelled", () => abort.abort());
        return services[name](requestStream ? call : call.request, abort.signal, call);
      };
      implementation[name] = responseStream
        ? (call: ServerDuplexStream<unknown, unknown>) => {
            handler(call).then(
              () => call.end(),
              (error) => call.emit("error", statusOf(error)),
            );
          }
        : (((call: ServerReadableStream<unknown, unknown>, callback: (error: Partial<ServiceError> | null, reply?: unknown) => void) => {
            handler(call).then(
              (reply) => callback(null, reply),
              (error) => callback(statusOf(error)),
            );
          }) as unknown as handleUnaryCall<unknown, unknown>);
    }
    return implementation;
  }

  #meetFault(name: string): void {
    const at = this.#faults.findIndex(({ method }) => method.toLowerCase() === name.toLowerCase());
    const fault = this.#faults[at];
    if (!fault) return;
    fault.times! -= 1;
    if (fault.times! <= 0) this.#faults.splice(at, 1);
    const { code = Code.UNAVAILABLE, reason, metadata = {}, retryAfter } = fault;
    throw new Refusal(code, reason, `a test asked for ${reason}`, { metadata, ...(retryAfter === undefined ? {} : { retryAfter }) });
  }
}

function statusOf(error: unknown): Partial<ServiceError> {
  if (error instanceof Refusal) return error.toError();
  return { code: Code.INTERNAL, details: `the fake has a bug: ${(error as Error)?.stack}` };
}
